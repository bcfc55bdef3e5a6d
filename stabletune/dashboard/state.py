"""What the page shows, as plain data, read anew from the files: of a search's folder, or of a watched training's."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stabletune.dashboard.confinement import refuse_links_out
from stabletune.dashboard.digests import (
    CURVES,
    NEWEST_ROWS,
    POINTS,
    SIGNALS,
    AlertsDigest,
    DecisionsDigest,
    MeasurementsDigest,
)
from stabletune.dashboard.growing_file import GrowingFile
from stabletune.errors import OutputFolderError
from stabletune.records import ALERTS_FILE, GUARD_FILE, MEASUREMENTS_FILE, finite_or_none
from stabletune.results.curves import EPISODES, LOSSES, Curves
from stabletune.results.report.axes import is_logarithmic
from stabletune.results.report.downsampling import downsample
from stabletune.results.store import RunFolder

NEWEST_RUNS = 6
EDGES = {"sharpness_ratio": 1.0}
FILES_OF_A_SEARCH = (
    "config.yaml",
    "trials",
    "trials.csv",
    "confirmations.csv",
    "running.json",
    "analysis.json",
    "recommended.yaml",
)
FILES_OF_A_TRAINING = (MEASUREMENTS_FILE, ALERTS_FILE, GUARD_FILE)
FILES_OF_A_RUN = (LOSSES, MEASUREMENTS_FILE, EPISODES)


class StateReader:
    """Reads one folder, again and again; of a training's files only what is new, in bounded memory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._measurements = GrowingFile(path / MEASUREMENTS_FILE, MeasurementsDigest)
        self._alerts = GrowingFile(path / ALERTS_FILE, AlertsDigest)
        self._decisions = GrowingFile(path / GUARD_FILE, DecisionsDigest)

    def read(self) -> dict[str, Any]:
        """The state of a search, or of a watched training.

        Raises:
            OutputFolderError: the folder is neither, or a file in it is not as it was written or a link out of it.
        """
        with self._lock:
            refuse_links_out(self._path, (self._path / name for name in FILES_OF_A_SEARCH + FILES_OF_A_TRAINING))
            folder = RunFolder(self._path)
            if folder.exists():
                return dict(finite_or_none(_search(folder)))
            if (self._path / MEASUREMENTS_FILE).exists() or (self._path / ALERTS_FILE).exists():
                return dict(finite_or_none(self._training()))
        raise OutputFolderError(
            f"{self._path}: must be the output folder of a search, or the folder of a FolderSink, but holds neither "
            f"config.yaml nor {MEASUREMENTS_FILE}. Name the folder that is being written."
        )

    def _training(self) -> dict[str, Any]:
        measured, alerts = self._measurements.read(), self._alerts.read()
        run: dict[str, Any] = {"label": self._path.name, "spikes": alerts.spikes.columns()}
        run.update((name, series.columns()) for name, series in measured.curves.items())
        return {
            "kind": "training",
            "name": self._path.name,
            "step": measured.step,
            "level": alerts.level,
            "runs": [run],
            "axes": _axes([run]),
            "rows": [],
            "alerts": list(alerts.newest),
            "decisions": list(self._decisions.read().newest),
        }


def read_state(path: Path) -> dict[str, Any]:
    """The state of a folder, once; see ``StateReader.read``."""
    return StateReader(path).read()


def _search(folder: RunFolder) -> dict[str, Any]:
    config, trials, proofs = folder.config(), folder.trials.rows(), folder.confirmations.rows()
    budget = config.get("budget") or {}
    newest = [(row["trial"], None, f"trial {row['trial']}") for row in trials[-NEWEST_RUNS:]]
    newest += [
        (row["candidate"], row["seed"], f"{row['purpose']} {row['candidate']}, seed {row['seed']}")
        for row in proofs[-NEWEST_RUNS:]
    ]
    for number, seed, _ in newest:
        refuse_links_out(folder.path, (folder.run_path(number, seed=seed) / name for name in FILES_OF_A_RUN))
    curves = [(label, folder.curves(number, seed=seed)) for number, seed, label in newest]
    recommendation = folder.recommendation()
    running = _running(folder)
    runs = [
        *[_curves(label, found) for label, found in curves if found is not None],
        *map(_curves_of_running, running),
    ]
    return {
        "kind": "search",
        "n_running": len(running),
        "seconds_silent": time.time() - folder.running_path.stat().st_mtime if running else None,
        "name": config.get("name"),
        "n_trials": budget.get("trials"),
        "counts": Counter(row["status"] for row in trials),
        "n_proof_runs": len(proofs),
        "outcome": folder.analysis().get("outcome"),
        "recommended": None if recommendation is None else recommendation.settings,
        "rows": [
            *map(_brief_of_running, running),
            *[_brief(row) for row in reversed([*trials, *proofs][-NEWEST_ROWS:])],
        ],
        "runs": runs,
        "axes": _axes(runs),
        "alerts": [],
        "decisions": [],
    }


def _axes(runs: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """How each chart is drawn, by the rule that the report has."""
    drawn = {name: [run[name][1] for run in runs] for name in CURVES}
    drawn["loss"] += [run["spikes"][1] for run in runs if "spikes" in run]
    return {name: {"log": is_logarithmic(name, lines), "edge": EDGES.get(name)} for name, lines in drawn.items()}


def _curves(label: str, curves: Curves) -> dict[str, Any]:
    steps = np.arange(1, curves.losses.size + 1, dtype=np.float64)
    found = {"label": label, "loss": _pair(*downsample(steps, curves.losses, points=POINTS))}
    for name in SIGNALS:
        found[name] = _pair(*downsample(*curves.series(name), points=POINTS))
    return found


def _thinned(pairs: list[tuple[float, float]]) -> list[list[float]]:
    steps, values = (np.asarray(column, dtype=np.float64) for column in zip(*pairs, strict=True)) if pairs else ([], [])
    return _pair(*downsample(np.asarray(steps), np.asarray(values), points=POINTS))


def _pair(steps: Any, values: Any) -> list[list[float]]:
    return [[float(step) for step in steps], [float(value) for value in values]]


def _brief(row: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("status", "steps", "lr", "beta2", "objective", "n_spikes", "max_sharpness_ratio", "reason", "cause")
    name = row.get("trial", row.get("candidate"))
    of_seed = f", seed {row['seed']}" if row.get("purpose") else ""
    return {"run": f"{row.get('purpose', 'trial')} {name}{of_seed}", **{key: row.get(key) for key in kept}}


def _running(folder: RunFolder) -> list[dict[str, Any]]:
    """The runs under way, as ``study`` writes them."""
    runs = folder.running().get("runs", [])
    needed = {"purpose", "trial", "seed", "lr", "beta2", "step", "steps", "points"}
    if not isinstance(runs, list) or not all(isinstance(run, dict) and needed <= set(run) for run in runs):
        raise OutputFolderError(f"{folder.running_path}: must list runs as a search writes them. Delete it.")
    return runs


def _brief_of_running(run: Mapping[str, Any]) -> dict[str, Any]:
    ratios = [ratio for _, _, ratio, _ in run["points"] if ratio is not None]
    return {
        "run": _label(run),
        "status": "running",
        "steps": f"{run['step']} of {run['steps']}",
        "lr": run["lr"],
        "beta2": run["beta2"],
        "max_sharpness_ratio": max(ratios, default=None),
    }


def _curves_of_running(run: Mapping[str, Any]) -> dict[str, Any]:
    """Of what it has reported: about two points a second."""
    points = run["points"]
    return {
        "label": f"{_label(run)}, running",
        "loss": _thinned([(step, loss) for step, loss, _, _ in points if loss is not None]),
        "sharpness_ratio": _thinned([(step, ratio) for step, _, ratio, _ in points if ratio is not None]),
        "v_hat_staleness": _thinned([(step, stale) for step, _, _, stale in points if stale is not None]),
    }


def _label(run: Mapping[str, Any]) -> str:
    return f"{'trial' if run['purpose'] == 'search' else run['purpose']} {run['trial']}, seed {run['seed']}"
