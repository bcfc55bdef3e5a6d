"""The metric in which the optimizer sees the loss: the one place that owns the normalisation of every ratio."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from stabletune.signals.curvature.hvp import LossGraph, flatten
from stabletune.signals.optimizer_state.adaptive_tensor import AdaptiveTensor


def stability_weights(tensor: AdaptiveTensor) -> Tensor:
    """Weight each coordinate so that the top eigenvalue of W^½ H W^½ is the ratio to the edge of stability itself.

    W = c κ / (2 - δ) / (√v̂ + ε);  c κ / (2 - δ) while the optimizer does not precondition

    With v̂ frozen the iteration on a quadratic first diverges by flipping sign, θ → -θ: the rules in
    ``optimizer_state`` show that no other condition binds. A gradient that alternates between ±Hθ moves θ by
    c κ P⁻¹Hθ, decoupled decay by δθ, so that the flip needs (2 - δ) θ = c κ P⁻¹Hθ: an eigenvalue 1 of W H. This puts
    the edge at 1 for every group of hyperparameters at once, which a common η/2 in front could not.

    Args:
        tensor: one parameter's state; κ, δ and the clip factor c as it says.

    Returns:
        W, shaped as the parameter; 0 where √v̂ + ε = 0 (no step is defined there).

    Source: arXiv:2207.14484, section 2, for Adam.
    """
    if not tensor.is_preconditioned:
        return torch.full_like(tensor.v_hat, _relative_step(tensor))
    denominator = tensor.v_hat_root + tensor.eps
    return torch.where(denominator > 0, _relative_step(tensor) / denominator, torch.zeros_like(denominator))


class Weighing(NamedTuple):
    """All that W depends on beside v̂'s moment: c κ / (2 - δ), the correction, ε, and whether there is a denominator."""

    relative_step: float
    correction: float
    eps: float
    is_preconditioned: bool


def weighing(tensor: AdaptiveTensor) -> Weighing:
    """Return what makes two parameters' weights the same function of their moments."""
    return Weighing(_relative_step(tensor), tensor.correction, tensor.eps, tensor.is_preconditioned)


def inverse_weights(alike: Weighing, moments: Sequence[Tensor], like: Tensor) -> Tensor:
    """Return 1/W of parameters that are weighed alike, as one flat vector; 0 where √v̂ + ε is, as W is there.

    Args:
        alike: what they have in common; they move, c κ > 0.
        moments: the ``denominator_moment`` of each.
        like: gives precision and device.

    Cost: five elementwise passes, whatever the number of parameters.
    """
    flat = flatten(moments, like)
    if not alike.is_preconditioned:
        return flat.fill_(1.0 / alike.relative_step)
    return flat.div_(alike.correction).sqrt_().add_(alike.eps).div_(alike.relative_step)


def _relative_step(tensor: AdaptiveTensor) -> float:
    """Return c κ / (2 - δ)."""
    return tensor.clip_factor * tensor.step_size / (2 - tensor.shrinkage)


class SymmetricOperator(Protocol):
    """What an eigenvalue solver needs: products, and the gradient in the same coordinates to start from."""

    scaled_gradient: Tensor

    @property
    def root(self) -> Tensor | None:
        """Return W^½, (n,), which leads out of them; None where there are no weights."""

    def product(self, vector: Tensor) -> Tensor:
        """Return A x."""


class PreconditionedHessian:
    """The symmetric operator A = W^½ (H + λI) W^½ on flat vectors, with λ the coupled L2 decay of each group.

    Args:
        graph: the loss and its derivatives.
        tensors: the state of ``graph.params``, in that order.

    Cost: one Hessian product per call; four flat vectors are held.
    """

    def __init__(self, graph: LossGraph, tensors: Sequence[AdaptiveTensor]) -> None:
        like = graph.like
        self._graph = graph
        self.root = flatten([stability_weights(tensor) for tensor in tensors], like).sqrt_()
        self._l2: Tensor | None = None
        self.gradient = graph.gradient()
        if any(tensor.l2 for tensor in tensors):
            self._l2 = flatten([torch.full_like(tensor.param, tensor.l2) for tensor in tensors], like)
            self.gradient = self.gradient + self._l2 * flatten([tensor.param for tensor in tensors], like)
        self.scaled_gradient = self.root * self.gradient
        self.n_products = 0

    def product(self, vector: Tensor) -> Tensor:
        """Return A x."""
        return self.root * self.half_product(vector)

    def half_product(self, vector: Tensor) -> Tensor:
        """Return (H + λI) W^½ x, the image before it is scaled back."""
        self.n_products += 1
        scaled = self.root * vector
        image = self._graph.product(scaled)
        return image if self._l2 is None else image + self._l2 * scaled

    def masked(self, is_kept: Tensor) -> MaskedOperator:
        """Return M A M, with M the projector on the coordinates kept."""
        return MaskedOperator(self, is_kept)

    def unscaled(self, vector: Tensor) -> Tensor:
        """Return W^½ x: from symmetric coordinates to those of the parameters, or an image the other way."""
        return self.root * vector


class MaskedOperator:
    """M A M: the operator restricted to some coordinates, zero on the others."""

    def __init__(self, operator: PreconditionedHessian, is_kept: Tensor) -> None:
        self._operator = operator
        self._kept = is_kept.to(operator.scaled_gradient)
        self.scaled_gradient = operator.scaled_gradient * self._kept
        self.root: Tensor | None = operator.root * self._kept

    def product(self, vector: Tensor) -> Tensor:
        """Return M A M x."""
        return self._kept * self._operator.product(self._kept * vector)


def is_at_floor(tensors: Sequence[AdaptiveTensor], like: Tensor) -> Tensor:
    """Mark the coordinates where ε rules the step, √v̂ ≤ ε, as one flat boolean vector."""
    marks = [(t.v_hat_root <= t.eps) & t.is_preconditioned for t in tensors]
    return torch.cat([mark.reshape(-1).to(like.device) for mark in marks])
