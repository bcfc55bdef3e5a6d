"""How far a run has come: the learning rates of its steps added up."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stabletune.schedules import lr_factor

KNOTS = 257


def path_length(
    lr: float, steps: ArrayLike, *, schedule: str, warmup_steps: int, full_steps: int
) -> NDArray[np.float64]:
    """Return ``lr * sum of lr_factor`` over the first ``steps`` steps, in units of the parameters' normalized movement.

    Adam moves each parameter by about lr a step, whatever the gradient, so that runs at different rates come equally
    far after equal sums.

    Args:
        lr: the trial's learning rate.
        steps: one count of steps or several.
        schedule: one of ``SCHEDULES``.
        warmup_steps: length of the warm-up.
        full_steps: the full horizon.
    """
    knots, sums = _cumulative_factor(schedule, warmup_steps, full_steps)
    return lr * np.maximum(np.interp(np.asarray(steps, dtype=np.float64), knots, sums), 1e-3)


@functools.lru_cache(maxsize=4096)
def _cumulative_factor(
    schedule: str, warmup_steps: int, full_steps: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    knots = np.unique(np.concatenate([np.linspace(0, end, KNOTS).round() for end in (warmup_steps, full_steps)]))
    factors = [lr_factor(schedule, int(step), warmup_steps=warmup_steps, full_steps=full_steps) for step in knots]
    areas = np.diff(knots) * (np.array(factors[1:]) + np.array(factors[:-1])) / 2.0
    return knots, np.concatenate([[0.0], np.cumsum(areas)])
