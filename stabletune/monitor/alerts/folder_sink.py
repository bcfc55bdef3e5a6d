"""A watched training as files, which ``stabletune dashboard`` shows while they grow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

from stabletune.errors import OutputFolderError
from stabletune.monitor.alerts.jsonl_sink import JsonlSink
from stabletune.records import (
    ALERTS_FILE,
    FORMAT_VERSION,
    MEASUREMENTS_FILE,
    Alert,
    Level,
    Measurement,
    as_data,
    finite_or_none,
)

EVERY, SHOWN = 10, 60


class FolderSink:
    """Writes ``alerts.jsonl``, and ``measurements.jsonl``: each reading, and the loss of every tenth step.

    Args:
        folder: made if it is not there.
        goes_on: add to the files of the same training, which went on from a checkpoint; its monitor is given the
            checkpoint's step as ``start_step``. A last line that was cut off, as by a kill, is removed.

    Raises:
        FileExistsError: the folder holds another training's files.
        OutputFolderError: the last whole line of ``alerts.jsonl`` is no alert.
    """

    def __init__(self, folder: str | Path, *, goes_on: bool = False) -> None:
        self._folder = Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / MEASUREMENTS_FILE
        if path.exists() and not goes_on:
            raise FileExistsError(
                f"folder: must not hold another training's files yet, but {path} is there. "
                "Name another folder, or go on with that training by goes_on=True."
            )
        path.touch()
        _end_with_a_whole_line(path)
        self._alerts = JsonlSink(self._folder / ALERTS_FILE)
        self._left_at = _last_level(self._folder / ALERTS_FILE) if goes_on else "calm"

    def __call__(self, alert: Alert) -> None:
        """Add the alert."""
        self._alerts(alert)

    def observe(self, step: int, loss: float, reading: Measurement | None) -> None:
        """Add the step if it was read, or is a tenth one; a training that goes on begins calm, and its file says so."""
        if self._left_at != "calm":
            message = f"step {step}: goes on, and is judged anew."
            self(Alert(step=step, level="calm", previous=self._left_at, message=message, loss=loss))
            self._left_at = "calm"
        if reading is None and step % EVERY:
            return
        fields = {} if reading is None else as_data(reading)
        line = {**fields, "step": step, "loss": finite_or_none(loss), "version": FORMAT_VERSION}
        with (self._folder / MEASUREMENTS_FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")


def _end_with_a_whole_line(path: Path) -> tuple[int, bytes]:
    """How many whole lines a file has, and the last; one that was cut off goes, for the next would be joined to it."""
    n_lines, last, end = 0, b"", 0
    if path.exists():
        with path.open("r+b") as file:
            for line in file:
                if line.endswith(b"\n"):
                    n_lines, last, end = n_lines + 1, line, end + len(line)
            file.truncate(end)
    return n_lines, last


def _last_level(path: Path) -> Level:
    """The level of the last alert in a file; calm where there is none."""
    n_lines, last = _end_with_a_whole_line(path)
    if not n_lines:
        return "calm"
    try:
        found = json.loads(last)
    except (ValueError, RecursionError):
        found = None
    known: dict[str, Level] = {level: level for level in get_args(Level)}
    level = found.get("level") if isinstance(found, dict) else None
    if not isinstance(level, str) or level not in known:
        raise OutputFolderError(
            f"{path}:{n_lines}: the last line must be an alert, a JSON object with a level, but got "
            f"{_shortened(last)}. Restore the file, or remove that line."
        )
    return known[level]


def _shortened(line: bytes) -> str:
    """The begin of a line, on one line and with nothing in it that a terminal would obey."""
    text = ascii(line.decode("utf-8", "replace").strip())
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
