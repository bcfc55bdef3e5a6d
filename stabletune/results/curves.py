"""What one run leaves step by step: every loss, every measurement, its spikes, and its traceback if it raised.

Flows in: a ``TrialResult`` and the folder that is its own; flows out: the same arrays and rows for the report.
"""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stabletune.errors import OutputFolderError
from stabletune.records import MEASUREMENTS_FILE, TrialResult, as_data
from stabletune.results.atomic_files import replace_file

LOSSES = "losses.npy"
STEPS = "steps.npz"
EPISODES = "episodes.jsonl"
DIAGNOSES = "diagnoses.jsonl"
INSPECTIONS = "inspections.jsonl"
TRACEBACK = "traceback.txt"


@dataclasses.dataclass(frozen=True)
class Curves:
    """One run's history: ``losses`` per step, measurements and episodes as plain rows."""

    losses: NDArray[np.float64]
    measurements: tuple[Mapping[str, Any], ...]
    episodes: tuple[Mapping[str, Any], ...]

    def series(self, field: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The steps at which ``field`` was measured, and its readings there."""
        pairs = [(row["step"], row[field]) for row in self.measurements if row.get(field) is not None]
        steps, values = zip(*pairs, strict=True) if pairs else ((), ())
        return np.asarray(steps, dtype=np.float64), np.asarray(values, dtype=np.float64)


def write_curves(folder: Path, result: TrialResult) -> None:
    """Write a run's files, replacing those of an earlier attempt."""
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(result.losses, dtype=np.float64))
    replace_file(folder / LOSSES, buffer.getvalue())
    replace_file(folder / MEASUREMENTS_FILE, _lines(result.measurements))
    replace_file(folder / STEPS, _archive(result))
    _replace_or_remove(folder / EPISODES, _lines(result.episodes))
    _replace_or_remove(folder / DIAGNOSES, _lines(result.diagnoses))
    _replace_or_remove(folder / INSPECTIONS, _lines(result.inspections))
    _replace_or_remove(folder / TRACEBACK, result.traceback or "")


def _archive(result: TrialResult) -> bytes:
    """What a diagnosis needs of each step beside the loss, in half its digits."""
    buffer = io.BytesIO()
    columns = {"gradient_norms": result.gradient_norms, "learning_rates": result.learning_rates}
    with np.errstate(over="ignore"):
        narrow = {name: values.astype(np.float32) for name, values in columns.items()}
        np.savez_compressed(buffer, allow_pickle=False, **narrow)
    return buffer.getvalue()


def read_curves(folder: Path) -> Curves | None:
    """A run's history, or None while it has none.

    Raises:
        OutputFolderError: one of its files is not as it was written.
    """
    path = folder / LOSSES
    if not path.exists():
        return None
    try:
        losses = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise OutputFolderError(
            f"{path}: must be the losses of a run, but cannot be read. Delete {folder} to draw the rest."
        ) from error
    return Curves(losses, _rows(folder / MEASUREMENTS_FILE), _rows(folder / EPISODES))


def _lines(records: Iterable[Any]) -> str:
    return "".join(json.dumps(as_data(record), allow_nan=False) + "\n" for record in records)


def _rows(path: Path) -> tuple[Mapping[str, Any], ...]:
    if not path.exists():
        return ()
    try:
        rows = tuple(json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line)
        if not all(isinstance(row, dict) for row in rows):
            raise ValueError("a line is no JSON object")
    except (ValueError, RecursionError, OSError) as error:
        raise OutputFolderError(
            f"{path}: must be lines of JSON, but got {error}. Delete {path.parent} to draw the rest."
        ) from error
    return rows


def _replace_or_remove(path: Path, content: str) -> None:
    if content:
        replace_file(path, content)
    else:
        path.unlink(missing_ok=True)
