"""How far the update leaves unit size: the mark a burst of gradient leaves before v̂ has followed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from stabletune.signals.optimizer_state.adaptive_tensor import AdaptiveTensor


def update_rms(tensors: Sequence[AdaptiveTensor], gradients: Sequence[Tensor]) -> float | None:
    """Measure the largest root mean square, over tensors, of the gradient in units of √v̂.

    max over tensors of √mean(g² / max(v̂, ε²)). About 1 while v̂ follows; above 2.3 marks the damage, it does not lead.

    Args:
        tensors: the optimizer's view of each parameter.
        gradients: one per tensor, shaped as the parameter.

    Returns:
        The largest value; None without tensors.

    Cost: three elementwise passes.
    Source: StableAdamW, arXiv:2304.13013, section 3.2.
    """
    values = []
    for tensor, gradient in zip(tensors, gradients, strict=True):
        root = tensor.v_hat_root.clamp_min(max(tensor.eps, torch.finfo(tensor.v_hat_root.dtype).tiny))
        values.append(math.sqrt(float((gradient / root).double().square().mean())) if gradient.numel() else 0.0)
    return max(values, default=None)
