"""Which axis a chart has: one rule for the report and for the live page."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike

WIDE = 5.0


def is_logarithmic(field: str, series: Iterable[ArrayLike]) -> bool:
    """Whether the values of ``field`` are drawn on a logarithmic axis.

    Where every finite value is above 0, as others would not be drawn; the sharpness ratio only where it runs so far
    over its edge that a linear axis would flatten everything near it.

    Args:
        field: ``loss``, ``sharpness_ratio`` or ``v_hat_staleness``.
        series: the values of each line, any shape.
    """
    values = np.concatenate([np.empty(0), *(np.ravel(np.asarray(line, dtype=np.float64)) for line in series)])
    finite = values[np.isfinite(values)]
    is_positive = bool(np.all(finite > 0))
    if field == "sharpness_ratio":
        return is_positive and bool(np.any(finite > WIDE))
    return is_positive
