"""One table row from one ``TrialResult``: the columns of ``trials.csv`` and ``confirmations.csv`` are decided here."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

from stabletune.records import FORMAT_VERSION, Measurement, TrialResult

TRIAL_KEY = ("trial",)
CONFIRMATION_KEY = ("candidate", "purpose", "seed")
# what reports and the dashboard cannot do without
TRIAL_COLUMNS = ("status", "reason", "seed", "steps", "objective", "n_spikes", "max_sharpness_ratio")
CONFIRMATION_COLUMNS = ("status", "reason", "steps", "objective", "n_spikes", "worst_spike_ratio")


def trial_row(result: TrialResult) -> dict[str, Any]:
    """The ``trials.csv`` row of a trial: identity, hyperparameters, then what was seen."""
    spec = result.spec
    arguments = {f"workload_args.{name}": _cell(value) for name, value in spec.workload_args.items()}
    return {
        "trial": spec.number,
        "status": result.status,
        "reason": result.reason,
        "seed": spec.seed,
        "steps": result.steps,
        **{name: _cell(value) for name, value in spec.params.items()},
        **arguments,
        "objective": result.objective,
        **_spikes(result),
        "max_sharpness_ratio": largest(result.measurements, "sharpness_ratio"),
        "max_gradient_curvature_ratio": largest(result.measurements, "gradient_curvature_ratio"),
        "v_hat_staleness": _last(result.measurements, "v_hat_staleness"),
        "overhead": result.overhead,
        "seconds": result.seconds,
        **_diagnosis(result),
        "version": FORMAT_VERSION,
    }


def confirmation_row(result: TrialResult) -> dict[str, Any]:
    """The ``confirmations.csv`` row of a proof run; ``candidate`` is the number of the trial it proves."""
    return {
        "candidate": result.spec.number,
        "purpose": result.spec.purpose,
        "seed": result.spec.seed,
        "status": result.status,
        "reason": result.reason,
        "steps": result.steps,
        "objective": result.objective,
        **_spikes(result),
        "max_sharpness_ratio": largest(result.measurements, "sharpness_ratio"),
        "seconds": result.seconds,
        **_diagnosis(result),
        "version": FORMAT_VERSION,
    }


def largest(measurements: Iterable[Measurement], field: str) -> float | None:
    """The largest finite reading of ``field``; None when it was never measured."""
    return max(_finite(measurements, field), default=None)


def _last(measurements: Iterable[Measurement], field: str) -> float | None:
    readings = _finite(measurements, field)
    return readings[-1] if readings else None


def _finite(measurements: Iterable[Measurement], field: str) -> list[float]:
    readings = (getattr(measurement, field) for measurement in measurements)
    return [float(value) for value in readings if value is not None and math.isfinite(value)]


def _spikes(result: TrialResult) -> dict[str, Any]:
    ratios = [episode.worst_ratio for episode in result.episodes]
    return {"n_spikes": len(ratios), "worst_spike_ratio": max(ratios, default=None)}


def _diagnosis(result: TrialResult) -> dict[str, Any]:
    """Of the run's worst spike; empty where there was none."""
    why = result.main_diagnosis
    return {
        "cause": why.cause if why is not None else "",
        "evidence": why.evidence if why is not None else "",
        "remedy": why.remedy if why is not None else "",
    }


def _cell(value: Any) -> Any:
    """A cell for any hyperparameter: scalars as they are, lists and mappings as JSON."""
    return value if value is None or isinstance(value, bool | int | float | str) else json.dumps(value, default=str)
