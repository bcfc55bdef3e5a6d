"""Whether the second moment follows the gradient: its staleness now, and its decay over the last step."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from stabletune.signals.curvature.hvp import flatten
from stabletune.signals.curvature.preconditioner import weighed_alike
from stabletune.signals.optimizer_state.adaptive_tensor import AdaptiveTensor
from stabletune.signals.optimizer_state.reading import read_tensors


def v_hat_staleness(tensors: Sequence[AdaptiveTensor], gradients: Sequence[Tensor]) -> float | None:
    """Compare what the optimizer divides by with the gradient at hand.

    Σ v̂ / Σ g²: above 1 v̂ outlives its gradients, below 1 it lags a burst. Without an absolute edge.

    Args:
        tensors: the optimizer's view of each parameter; v̂ is what stands under its root.
        gradients: one per tensor, what enters the moments (with the coupled decay, unclipped).

    Returns:
        The ratio; None where the gradient vanishes.

    Cost: two passes in float64.
    """
    if not tensors:
        return None
    flat = flatten(gradients, gradients[0].new_empty(0, dtype=torch.float64))
    denominator = float(torch.dot(flat, flat))
    numerator = sum(
        float(flatten([tensor.denominator_moment for tensor in group], flat).sum()) / alike.correction
        for alike, group in weighed_alike(tensors)
    )
    return numerator / denominator if denominator > 0 else None


@dataclasses.dataclass(frozen=True)
class SecondMomentSums:
    """‖v‖₁ of every parameter, left on its device, with its step count and its decay per step, b2."""

    sums: dict[int, Tensor]
    steps: dict[int, int]
    beta2: dict[int, float]


def sum_second_moments(optimizer: torch.optim.Optimizer) -> SecondMomentSums:
    """Read Σ v of each parameter that has taken a step; one reduction each, whose result stays on the device."""
    tensors = read_tensors(optimizer)
    return SecondMomentSums(
        sums={id(t.param): t.second_moment.sum(dtype=torch.float64) for t in tensors},
        steps={id(t.param): t.n_steps for t in tensors},
        beta2={id(t.param): t.beta2 for t in tensors},
    )


def v_hat_decay(before: SecondMomentSums, after: SecondMomentSums) -> float | None:
    """Test whether anything new enters v: 1 is pure decay, 0 a steady v, negative a growing one.

    log(‖v_t‖₁ / ‖v_{t-1}‖₁) / log b2;  with several b2, b2 = Σ b2_i ‖v_{t-1,i}‖₁ / ‖v_{t-1}‖₁, exact for pure decay

    Args:
        before: the sums after step t-1.
        after: the sums after step t.

    Returns:
        The ratio of logarithms; None if some parameter did not take exactly one step between, v is zero, or it never
        decays (Adagrad).

    Cost: none beyond the sums.
    """
    if not before.sums or before.sums.keys() != after.sums.keys():
        return None
    if any(after.steps[key] != count + 1 for key, count in before.steps.items()):
        return None
    earlier = {key: float(total) for key, total in before.sums.items()}
    total = sum(earlier.values())
    decayed = sum(after.beta2[key] * value for key, value in earlier.items())
    now = sum(float(value) for value in after.sums.values())
    if not all(0 < value < math.inf for value in (total, decayed, now)) or decayed == total:
        return None
    return math.log(now / total) / math.log(decayed / total)
