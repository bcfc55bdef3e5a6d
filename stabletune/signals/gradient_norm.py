"""The size of the raw gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor


def gradient_norm(gradients: Sequence[Tensor]) -> float:
    """Return √Σ g² over all tensors, unclipped and without decay, summed in float64."""
    return math.sqrt(sum(float(gradient.double().square().sum()) for gradient in gradients))
