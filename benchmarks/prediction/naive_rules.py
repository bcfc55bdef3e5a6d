"""The rules that come to mind first, to compare with: each a score of the history so far, the higher the worse."""

from __future__ import annotations

import math

import numpy as np

from benchmarks.prediction.replay import Score
from stabletune.judgement.history import History

WINDOW = 100
STALE = 10.0
SUSTAINED_READINGS, SUSTAINED_STEPS = 3, 8


def newest(name: str) -> Score:
    """The value of one signal, at the steps at which it was read."""

    def score(history: History) -> float:
        now = history.measurements[-1] if history.measurements else None
        value = getattr(now, name) if now is not None and now.step == history.step else None
        return -math.inf if value is None else float(value)

    return score


def sustained_curvature(history: History) -> float:
    """The lowest of the last three gradient-curvature ratios, at the steps at which it was read."""
    return _lowest_of_last(history, "gradient_curvature_ratio")


def sustained_sharpness(history: History) -> float:
    """The lowest of the last three S over eight steps or more while v̂ is ten times its gradients; once v̂ has aged."""
    youngest = max(500, round(1.0 / max(1.0 - float(history.spec.params["beta2"]), 1e-6)))
    read = [m for m in history.measurements[-60:] if m.sharpness_ratio is not None]
    last = read[-SUSTAINED_READINGS:]
    if len(last) < SUSTAINED_READINGS or last[-1].step != history.step or last[0].step < youngest:
        return -math.inf
    if last[-1].step - last[0].step < SUSTAINED_STEPS or any((m.v_hat_staleness or 0.0) < STALE for m in last):
        return -math.inf
    return min(m.sharpness_ratio or 0.0 for m in last)


def gradient_norm_z(history: History) -> float:
    """How many of their deviations the logarithm of the gradient norm is above its last hundred."""
    *before, now = history.gradient_norms[-WINDOW - 1 :]
    return _z([math.log(g) for g in (*before, now) if g > 0]) if now > 0 else -math.inf


def loss_z(history: History) -> float:
    """The same of the loss."""
    floor = history.spikes.loss_floor
    return _z([math.log(loss - floor) for loss in history.losses[-WINDOW - 1 :]])


def loss_score(history: History) -> float:
    """The spike score of the loss itself."""
    return history.spikes.score


NAIVE_RULES: dict[str, tuple[Score, float | None]] = {
    "S > 1": (newest("sharpness_ratio"), 1.0),
    "S > 1, sustained, v̂ stale": (sustained_sharpness, 1.0),
    "gradient curvature > 1": (newest("gradient_curvature_ratio"), 1.0),
    "gradient curvature > 1, three times": (sustained_curvature, 1.0),
    "v̂ staleness": (newest("v_hat_staleness"), None),
    "update RMS > 2.3": (newest("update_rms"), 2.3),
    "gradient-norm z-score": (gradient_norm_z, None),
    "loss z-score": (loss_z, None),
    "spike score of the loss": (loss_score, None),
}


def _lowest_of_last(history: History, name: str) -> float:
    read = [m for m in history.measurements[-200:] if getattr(m, name) is not None][-SUSTAINED_READINGS:]
    if len(read) < SUSTAINED_READINGS or read[-1].step != history.step:
        return -math.inf
    return float(min(getattr(m, name) for m in read))


def _z(values: list[float]) -> float:
    """(x - mean) / deviation of the last value against those before it."""
    *before, last = values
    deviation = float(np.std(before)) if before else 0.0
    return (last - float(np.mean(before))) / deviation if deviation > 0 else -math.inf
