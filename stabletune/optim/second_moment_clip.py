"""Spike-aware clipping: bounds each gradient entry by what its second moment has seen so far."""

from __future__ import annotations

import torch
from torch import Tensor

FIRST_STEPS = 10


def clip_by_second_moment(grad: Tensor, exp_avg_sq: Tensor, *, limit: float, beta2: float, n_steps: int) -> Tensor:
    """Bound g² by θ times the second moment before this step.

    g ← sign(g) √(θ v̂_{t-1})  where  g² > θ v̂_{t-1}  and  v̂_{t-1} > 0,   v̂_{t-1} = v_{t-1} / (1 - b2^{t-1})

    A coordinate with v̂ = 0 is left alone (clipped to zero it would stay frozen for ever), and so is everything while
    v̂ averages fewer than 10 gradients, the memory of the first moment at b1 = 0.9. Nothing is kept between steps.

    Args:
        grad: gradient, any shape; not changed.
        exp_avg_sq: v_{t-1}, same shape, not yet updated with ``grad``.
        limit: θ > 0; 5,000 in the source.
        beta2: decay rate of the second moment.
        n_steps: t-1, the number of gradients in ``exp_avg_sq``.

    Returns:
        The clipped gradient; ``grad`` itself in the first steps.

    Cost: four elementwise passes and two temporaries.
    Source: SPAM, arXiv:2501.06842, section 4 (there with v in place of v̂).
    """
    if n_steps < FIRST_STEPS:
        return grad
    bound = (exp_avg_sq * (limit / (1 - beta2**n_steps))).sqrt_()
    bound.masked_fill_(bound == 0, torch.inf)
    return torch.minimum(torch.maximum(grad, -bound), bound)
