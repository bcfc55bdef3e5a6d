"""Fewer points for a chart without losing what the report is about: the spikes."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

Series = tuple[NDArray[np.float64], NDArray[np.float64]]


def downsample(steps: NDArray[np.float64], values: NDArray[np.float64], *, points: int = 1000) -> Series:
    """At most ``points`` of a series: the smallest and the largest value of each stretch, in order.

    The first and last point stay, a mean would hide a one-step spike. Non-finite values stay too, as the largest of
    their stretch, so that a divergence is seen. Cost: one pass over the series.

    Args:
        steps: increasing, shape (n,).
        values: shape (n,).
        points: at least 4.
    """
    if steps.size <= points:
        return steps, values
    finite = np.where(np.isfinite(values), values, np.inf)
    edges = np.linspace(0, steps.size, (points - 2) // 2 + 1).astype(int)
    kept = {0, steps.size - 1}
    for start, end in itertools.pairwise(edges):
        stretch = finite[start:end]
        kept.update((start + int(stretch.argmin()), start + int(stretch.argmax())))
    chosen = np.asarray(sorted(kept))
    return steps[chosen], values[chosen]
