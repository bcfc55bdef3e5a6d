"""The number a search makes small, and its comparison with the baseline."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from stabletune.judgement.history import TRAILING_WINDOW

METRICS: tuple[str, ...] = ("final_loss", "loss_auc", "steps_to_target")
FINAL_SHARE = 0.05


def objective_of(metric: str, losses: ArrayLike, *, loss_floor: float = 0.0, target: float | None = None) -> float:
    """Value of ``metric`` for one run; smaller is better.

    ``final_loss``: median of the last 5 % of the losses. ``loss_auc``: mean of log(loss - loss_floor) over all steps.
    ``steps_to_target``: the first step whose trailing median of 20 is at or below ``target``; 2 x steps if none is.

    Args:
        metric: one of ``METRICS``.
        losses: one loss per step, shape (steps,), finite.
        loss_floor: the loss's lower bound, for ``loss_auc``.
        target: for ``steps_to_target``.
    """
    values = np.asarray(losses, dtype=np.float64)
    if metric == "final_loss":
        return float(np.median(values[-max(1, round(FINAL_SHARE * values.size)) :]))
    if metric == "loss_auc":
        return float(np.mean(np.log(values - loss_floor)))
    if metric == "steps_to_target":
        if target is None:
            raise ValueError("objective.target: must be given for steps_to_target, but got null. Set it in the config.")
        windows = np.lib.stride_tricks.sliding_window_view(values, min(TRAILING_WINDOW, values.size))
        reached = np.flatnonzero(np.median(windows, axis=-1) <= target)
        return float(reached[0] + windows.shape[1]) if reached.size else 2.0 * values.size
    raise ValueError(f"objective.metric: must be one of {', '.join(METRICS)}, but got {metric!r}. Name one of them.")


def over_seeds(values: Sequence[float]) -> float:
    """The median over seeds."""
    return float(np.median(np.asarray(values, dtype=np.float64)))


def ratio_to_baseline(metric: str, value: float, baseline: float, *, source: str = "train") -> float:
    """How ``value`` compares with the baseline's: below 1 is better; for ``loss_auc`` exp of the difference."""
    if metric == "loss_auc" and source == "train":
        return math.exp(min(700.0, value - baseline))
    if baseline == 0.0:
        return 1.0 if value == 0.0 else math.inf
    return value / baseline if math.isfinite(baseline) else 0.0
