r"""How much of the loss oscillates across the edge of stability, and how strongly that refills v̂.

In: the optimizer's state after its step and the gradients it used. Out: two numbers, without a graph or a product: a
spike shows here while it is still a small part of the loss.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from stabletune.signals.curvature.hvp import flatten
from stabletune.signals.curvature.preconditioner import Weighing, weighed_alike
from stabletune.signals.optimizer_state.adaptive_tensor import AdaptiveTensor


class Oscillation(NamedTuple):
    """``energy`` in units of the loss; ``refill``, 1 where what enters v̂ along the oscillation makes up its decay."""

    energy: float
    refill: float


def oscillation(tensors: Sequence[AdaptiveTensor], gradients: Sequence[Tensor]) -> Oscillation | None:
    r"""Measure the loss held by the part of the gradient that changes sign from step to step.

    energy = ½ Σ W G²,  refill = Σ W G⁴/(√v̂+ε)² / Σ W G²,  G = (1+b1)/(2 b1) (g - m̂)

    At the edge the iterate flips along a direction, θ → -θ, and so does its gradient, g = ±G: m then alternates between
    ∓(1-b1)/(1+b1) G, so that g - m = 2 b1/(1+b1) G, while a gradient that drifts slowly cancels. In the coordinates of
    W (``stability_weights``) the Hessian has the eigenvalue S = 1 there, so that a flipping gradient W^½ G belongs to a
    loss of ‖W^½ G‖²/2. Since log S falls by ½ (1-b2) (refill - 1) per step along it, energy / refill tells how large
    the oscillation must become before v̂ stops it.

    Away from the edge, or where minibatch noise is what changes sign, energy is a scale for the noise, no loss.

    Args:
        tensors: the optimizer's view of each parameter, after the step.
        gradients: one per tensor, as they entered the moments of that step.

    Returns:
        Both; None where there is no averaged gradient (b1 = 0, or an optimizer without one), or nothing oscillates.

    Cost: about thirteen elementwise passes and one transfer.
    Source: stabletune's own, from the instability of arXiv:2207.14484.
    """
    pieces = [_weighed_squares(alike, group, pairs) for alike, group, pairs in _alike(tensors, gradients)]
    if not pieces:
        return None
    squared, refilling = (float(total) for total in torch.stack([torch.stack(pair) for pair in pieces]).sum(0))
    return Oscillation(squared / 2, refilling / squared) if squared > 0 else None


def _alike(
    tensors: Sequence[AdaptiveTensor], gradients: Sequence[Tensor]
) -> Iterator[tuple[Weighing, list[AdaptiveTensor], list[tuple[Tensor, Tensor]]]]:
    """Yield what is weighed and averaged alike, with each gradient beside its average."""
    entered = {id(tensor): gradient for tensor, gradient in zip(tensors, gradients, strict=True)}
    for alike, run in weighed_alike(tensors):
        for beta1, group in itertools.groupby(run, lambda tensor: tensor.beta1):
            averaged = list(group)
            pairs = [(entered[id(t)], t.first_moment) for t in averaged if t.first_moment is not None]
            if beta1 > 0 and alike.relative_step > 0 and len(pairs) == len(averaged):
                yield alike, averaged, pairs


def _weighed_squares(
    alike: Weighing, tensors: Sequence[AdaptiveTensor], pairs: Sequence[tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor]:
    """Return Σ W G² and Σ W G⁴/(√v̂+ε)², from d = g - m̂ and D = √v + ε√c, which is √c (√v̂ + ε)."""
    beta1, n_steps = tensors[0].beta1, tensors[0].n_steps
    like = pairs[0][0].new_empty(0, dtype=torch.promote_types(pairs[0][0].dtype, torch.float32))
    flips = flatten([gradient for gradient, _ in pairs], like)
    flips.sub_(flatten([average for _, average in pairs], like), alpha=1 / (1 - beta1**n_steps))
    root = alike.correction**0.5 if alike.is_preconditioned else 1.0
    energies, scaled = flips.square_(), (1 + beta1) / (2 * beta1)
    if alike.is_preconditioned:
        denominator = flatten([tensor.denominator_moment for tensor in tensors], like).sqrt_()
        # where √v̂ + ε is 0, so is the gradient
        denominator.add_(max(alike.eps * root, torch.finfo(denominator.dtype).tiny))
        energies.div_(denominator)
        refills = torch.dot(energies, energies.div(denominator))
    else:
        refills = torch.dot(energies, energies)
    weight = alike.relative_step * scaled**2 * root
    return energies.sum() * weight, refills * (weight * (scaled * root) ** 2)
