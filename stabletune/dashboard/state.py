"""What the page shows, as plain data, read anew from the files: of a search's folder, or of a watched training's."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stabletune.errors import OutputFolderError
from stabletune.records import ALERTS_FILE, GUARD_FILE, MEASUREMENTS_FILE
from stabletune.results.curves import Curves, finite_or_none
from stabletune.results.report.downsampling import downsample
from stabletune.results.store import RunFolder

NEWEST_RUNS, NEWEST_ROWS, POINTS = 6, 200, 600
SIGNALS = ("sharpness_ratio", "v_hat_staleness")


def read_state(path: Path) -> dict[str, Any]:
    """The state of a search, or of a watched training.

    Raises:
        OutputFolderError: the folder is neither.
    """
    folder = RunFolder(path)
    if folder.exists():
        return dict(finite_or_none(_search(folder)))
    if (path / MEASUREMENTS_FILE).exists() or (path / ALERTS_FILE).exists():
        return dict(finite_or_none(_training(path)))
    raise OutputFolderError(
        f"{path}: must be the output folder of a search, or the folder of a FolderSink, but holds neither "
        f"config.yaml nor {MEASUREMENTS_FILE}. Name the folder that is being written."
    )


def _search(folder: RunFolder) -> dict[str, Any]:
    config, trials, proofs = folder.config(), folder.trials.rows(), folder.confirmations.rows()
    budget = config.get("budget") or {}
    newest = [(row["trial"], None, f"trial {row['trial']}") for row in trials[-NEWEST_RUNS:]]
    newest += [
        (row["candidate"], row["seed"], f"{row['purpose']} {row['candidate']}, seed {row['seed']}")
        for row in proofs[-NEWEST_RUNS:]
    ]
    runs = [(label, folder.curves(number, seed=seed)) for number, seed, label in newest]
    recommendation = folder.recommendation()
    running = folder.running().get("runs", [])
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
        "runs": [
            *[_curves(label, curves) for label, curves in runs if curves is not None],
            *map(_curves_of_running, running),
        ],
        "alerts": [],
        "decisions": [],
    }


def _training(path: Path) -> dict[str, Any]:
    lines = _lines(path / MEASUREMENTS_FILE)
    losses = [(line["step"], line["loss"]) for line in lines if line.get("loss") is not None]
    run = {"label": path.name, "loss": _thinned(losses)}
    for name in SIGNALS:
        run[name] = _thinned([(line["step"], line[name]) for line in lines if line.get(name) is not None])
    alerts = _lines(path / ALERTS_FILE)
    return {
        "kind": "training",
        "name": path.name,
        "step": lines[-1]["step"] if lines else None,
        "level": alerts[-1]["level"] if alerts else "calm",
        "runs": [run],
        "rows": [],
        "alerts": list(reversed(alerts))[:NEWEST_ROWS],
        "decisions": list(reversed(_lines(path / GUARD_FILE)))[:NEWEST_ROWS],
    }


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


def _lines(path: Path) -> list[dict[str, Any]]:
    """Every whole line; the last may be cut in its middle while it is written."""
    return list(_parsed(path.read_text(encoding="utf-8").splitlines())) if path.exists() else []


def _parsed(lines: Iterable[str]) -> Iterable[dict[str, Any]]:
    for line in lines:
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict):
            yield found
