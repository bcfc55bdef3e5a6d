"""The data of the charts: plain dictionaries that ``page.js`` hands to plotly, with roles in place of colors."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stabletune.results.curves import Curves
from stabletune.results.report.axes import is_logarithmic
from stabletune.results.report.downsampling import downsample
from stabletune.results.report.findings import Findings, Proof, hyperparameters, is_finite

Chart = dict[str, Any]
MAX_RUNS = 10
STABILITY_CAPTION = (
    "The sharpness ratio S against its edge at 1, and below it how far the second moment v̂ has outlived the gradients. "
    "S may rest near 1 in healthy training; S above 1 for many steps while v̂ does not follow is what spikes."
)
MAP_CAPTION = (
    " The color behind them is the predicted probability of no spike over the full horizon, with everything else as in "
    "the recommendation, or in the baseline without one; it is fitted to all runs of this search, and least sure where "
    "there are none."
)
LOGARITHMIC = {"lr": "lr", "eps": "eps", "beta2": "1 − beta2", "beta1": "1 − beta1"}


@dataclasses.dataclass(frozen=True)
class Run:
    """One run to draw: whose it is, its place in the folder, and its history."""

    role: str
    label: str
    curves: Curves


def runs_to_draw(findings: Findings) -> list[Run]:
    """The baseline's proof runs and those of the best candidate; before any proof, the short trials of the same."""
    best, baseline = findings.best, findings.paired_baseline
    drawn = list(_proof_runs(findings, "baseline", baseline))
    if best is not None and best.candidate != baseline.candidate:
        drawn += _proof_runs(findings, "recommended" if findings.recommendation else "nearest", best)
    if drawn:
        return drawn
    return [
        Run(role, f"{role}, trial {number}", curves)
        for role, number in (("baseline", 0), ("best so far", _best_trial(findings)))
        if number is not None and (curves := findings.folder.curves(number)) is not None
    ]


def loss_chart(runs: Sequence[Run]) -> Chart | None:
    """Every run's loss over steps, logarithmic where every finite loss is above 0, with a mark at each spike's peak."""
    lines = [(run, *_points(run.curves)) for run in runs if run.curves.losses.size]
    if not lines:
        return None
    traces = [_line(run, steps, values) for run, steps, values in lines]
    traces += [trace for run in runs if (trace := _spike_marks(run)) is not None]
    return {
        "id": "loss",
        "traces": traces,
        "axes": [{"title": "loss", "log": is_logarithmic("loss", (values for _, _, values in lines))}],
        "x": "step",
        "caption": "Every step's loss, one line per run; pointing at a line names its seed."
        + (" A triangle marks the peak of each spike." if any(run.curves.episodes for run in runs) else ""),
    }


def stability_chart(runs: Sequence[Run]) -> Chart | None:
    """The sharpness ratio against its edge at 1, and below it how stale the second moment was."""
    series = {
        field: [(run, *downsample(*run.curves.series(field))) for run in runs]
        for field in ("sharpness_ratio", "v_hat_staleness")
    }
    traces = [
        {**_line(run, steps, values), "axis": axis}
        for axis, lines in enumerate(series.values(), start=1)
        for run, steps, values in lines
        if steps.size
    ]
    if not traces:
        return None
    is_log = {field: is_logarithmic(field, (values for _, _, values in lines)) for field, lines in series.items()}
    axes = [
        {"title": "sharpness ratio S", "log": is_log["sharpness_ratio"], "edge": 1.0, "from_zero": True},
        {"title": "staleness of v̂", "log": is_log["v_hat_staleness"]},
    ]
    return {"id": "stability", "traces": traces, "axes": axes, "x": "step", "caption": STABILITY_CAPTION}


def trials_chart(findings: Findings) -> Chart | None:
    """Where the trials were in the two hyperparameters that matter most, by what became of them."""
    names = _two_hyperparameters(findings)
    if len(names) < 2:
        return None
    traces = [] if (drawn := _map_of(findings, names)) is None else [drawn]
    for status in ("completed", "stopped", "diverged", "pruned", "failed"):
        rows = [row for row in findings.trials if row["status"] == status and all(is_finite(row.get(n)) for n in names)]
        if rows:
            traces.append(
                {
                    "role": status,
                    "name": status,
                    "x": [_plotted(names[0], row[names[0]]) for row in rows],
                    "y": [_plotted(names[1], row[names[1]]) for row in rows],
                    "text": [f"trial {row['trial']}: {row['reason']}" for row in rows],
                    "is_scatter": True,
                }
            )
    best = findings.best
    row = findings.trial(best.candidate) if best else None
    is_placed = row is not None and all(is_finite(row.get(name)) for name in names)
    ring = [_plotted(name, row[name]) for name in names] if row is not None and is_placed else None
    titles = [LOGARITHMIC.get(name, name) for name in names]
    axes = [{"title": titles[1], "log": names[1] in LOGARITHMIC}]
    return {
        "id": "trials-map",
        "traces": traces,
        "axes": axes,
        "x": titles[0],
        "x_log": names[0] in LOGARITHMIC,
        "ring": ring,
        "caption": "One mark per trial, by what became of it."
        + ("" if drawn is None else MAP_CAPTION)
        + ("" if ring is None else " The ring is the trial shown above."),
    }


def _proof_runs(findings: Findings, role: str, proof: Proof) -> Iterator[Run]:
    for row in proof.rows[:MAX_RUNS]:
        curves = findings.folder.curves(proof.candidate, seed=row["seed"])
        if curves is not None:
            yield Run(role, f"{role}, seed {row['seed']}", curves)


def _best_trial(findings: Findings) -> int | None:
    clean = [
        row
        for row in findings.trials
        if row["trial"] and row["status"] == "completed" and not row["n_spikes"] and is_finite(row["objective"])
    ]
    return min(clean, key=lambda row: row["objective"])["trial"] if clean else None


def _points(curves: Curves) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return downsample(np.arange(1, curves.losses.size + 1, dtype=np.float64), curves.losses)


def _line(run: Run, steps: NDArray[np.float64], values: NDArray[np.float64]) -> dict[str, Any]:
    return {
        "role": run.role,
        "name": run.role,
        "label": run.label,
        "x": [int(step) for step in steps],
        "y": [float(f"{value:.5g}") if np.isfinite(value) else None for value in values],
    }


def _spike_marks(run: Run) -> dict[str, Any] | None:
    """The peak of each episode."""
    losses = run.curves.losses
    steps = []
    for episode in run.curves.episodes:
        first, last = max(0, int(episode["start"]) - 1), min(losses.size, int(episode["end"]))
        if first < last and np.isfinite(losses[first:last]).any():
            steps.append(
                first + int(np.nanargmax(np.where(np.isfinite(losses[first:last]), losses[first:last], -np.inf)))
            )
    if not steps:
        return None
    marks = _line(run, np.asarray(steps) + 1.0, losses[steps])
    return {**marks, "name": "spike", "label": f"{run.label}: spike", "is_mark": True}


def _map_of(findings: Findings, names: Sequence[str]) -> dict[str, Any] | None:
    """Predicted survival behind the trials, where it was computed; its two hyperparameters are those drawn."""
    found = findings.analysis.get("stability_map")
    if not found:
        return None
    x, y = ([_plotted(name, value) for value in found[axis]] for name, axis in zip(names, ("x", "y"), strict=True))
    return {"role": "completed", "name": "predicted to stay clean", "x": x, "y": y, "z": found["survival"]}


def _two_hyperparameters(findings: Findings) -> list[str]:
    mapped = findings.analysis.get("stability_map")
    if mapped:
        return list(mapped["names"])
    varied = [
        name for name in hyperparameters(findings.trials) if any(is_finite(row.get(name)) for row in findings.trials)
    ]
    weights = (findings.analysis.get("importance") or {}).get("objective") or {}
    ranked = sorted(varied, key=lambda name: -float(weights.get(name) or 0.0))[:2]
    return sorted(ranked, key=varied.index)


def _plotted(name: str, value: float) -> float:
    """Beta is drawn as 1 - beta on a logarithmic axis: that is how it is searched."""
    return 1.0 - value if name in ("beta1", "beta2") else float(value)
