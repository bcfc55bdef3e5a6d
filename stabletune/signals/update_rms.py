"""How far the update leaves unit size: the mark a burst of gradient leaves before v̂ has followed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from stabletune.signals.curvature.hvp import flatten
from stabletune.signals.curvature.preconditioner import weighed_alike
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
    values = [0.0] if tensors else []
    position = 0
    for alike, group in weighed_alike(tensors):
        entering = gradients[position : position + len(group)]
        position += len(group)
        like = entering[0].new_empty(0, dtype=torch.promote_types(entering[0].dtype, torch.float32))
        roots = alike.roots([tensor.denominator_moment for tensor in group], like)
        roots.clamp_min_(max(alike.eps, torch.finfo(roots.dtype).tiny))
        sizes = [gradient.numel() for gradient in entering]
        norms = torch._foreach_norm(list(torch.split((flatten(entering, like) / roots).double(), sizes)))
        counts = zip(torch.stack(list(norms)).tolist(), sizes, strict=True)
        values += [norm / math.sqrt(size) for norm, size in counts if size]
    return max(values, default=None)
