"""The size of the raw gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def gradient_norm(gradients: Sequence[Tensor]) -> float:
    """Return √Σ g² over all tensors, unclipped and without decay, summed in float64."""
    return math.sqrt(sum(float(gradient.double().square().sum()) for gradient in gradients))


def held_gradient_norm(optimizer: torch.optim.Optimizer) -> float:
    """Return √Σ g² over the gradients that the optimizer's parameters hold now, as they were before it clipped them.

    To be asked after its step; see ``coming_gradient_norm``.
    """
    found = coming_gradient_norm(optimizer)
    before_clipping = getattr(optimizer, "grad_norm", None)
    return float(before_clipping) if before_clipping is not None and math.isfinite(found) else found


def coming_gradient_norm(optimizer: torch.optim.Optimizer) -> float:
    """Return √Σ g² over the gradients that the optimizer's parameters hold, with which it would step.

    In their own precision, or in float64 where that overflows or comes to 0; nan where none is held. What a
    ``GradScaler`` leaves to a fused optimizer to unscale is taken out.

    Cost: for every step: one pass and one transfer, 0.01-0.05 of a gradient on small networks.
    """
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    if not gradients:
        return math.nan
    dense = [gradient.coalesce().values() if gradient.is_sparse else gradient for gradient in gradients]
    with torch.no_grad():
        norms = torch._foreach_norm(dense)
        if len({(norm.device, norm.dtype) for norm in norms}) > 1:
            found = math.hypot(*(float(norm) for norm in norms))
        else:
            found = float(torch.linalg.vector_norm(torch.stack(list(norms))))
        if found == 0.0 or math.isinf(found):
            found = gradient_norm(dense)
    scale = getattr(optimizer, "grad_scale", None)
    return found if scale is None else found / float(scale)
