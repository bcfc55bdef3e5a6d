"""The metric in which the optimizer sees the loss: the one place that owns the normalisation of every ratio."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from stabletune.signals.curvature.hvp import LossGraph, flatten
from stabletune.signals.optimizer_state.adaptive_tensor import AdaptiveTensor


class Weighing(NamedTuple):
    """All that W depends on beside v̂'s moment: c κ / (2 - δ), the correction, ε, and whether there is a denominator."""

    relative_step: float
    correction: float
    eps: float
    is_preconditioned: bool

    def roots(self, moments: Sequence[Tensor], like: Tensor) -> Tensor:
        """Return √v̂ of parameters that are weighed alike, flat, from the ``denominator_moment`` of each."""
        return flatten(moments, like).div_(self.correction).sqrt_()

    def inverse_weights(self, moments: Sequence[Tensor], like: Tensor) -> Tensor:
        """Return 1/W, flat, where c κ > 0; but 0 where √v̂ + ε is 0, as W is there.

        Cost: five elementwise passes, whatever the number of parameters.
        """
        if not self.is_preconditioned:
            return flatten(moments, like).fill_(1.0 / self.relative_step)
        return self.roots(moments, like).add_(self.eps).div_(self.relative_step)


def weighed_alike(tensors: Sequence[AdaptiveTensor]) -> Iterator[tuple[Weighing, list[AdaptiveTensor]]]:
    """Yield runs of parameters whose weights are the same function of their moments, so that each is one vector."""
    for alike, group in itertools.groupby(tensors, _weighing):
        yield alike, list(group)


def stability_weights(tensors: Sequence[AdaptiveTensor], like: Tensor) -> Tensor:
    """Weigh each coordinate so that the top eigenvalue of W^½ H W^½ is the ratio to the edge of stability itself.

    W = c κ / (2 - δ) / (√v̂ + ε);  c κ / (2 - δ) while the optimizer does not precondition

    With v̂ frozen the iteration on a quadratic first diverges by flipping sign, θ → -θ: the rules in
    ``optimizer_state`` show that no other condition binds. A gradient that alternates between ±Hθ moves θ by
    c κ P⁻¹Hθ, decoupled decay by δθ, so that the flip needs (2 - δ) θ = c κ P⁻¹Hθ: an eigenvalue 1 of W H. This puts
    the edge at 1 for every group of hyperparameters at once, which a common η/2 in front could not.

    Args:
        tensors: each parameter's state; κ, δ and the clip factor c as it says.
        like: gives precision and device.

    Returns:
        W as one flat vector; 0 where √v̂ + ε = 0 (no step is defined there).

    Source: arXiv:2207.14484, section 2, for Adam.
    """
    pieces = []
    for alike, group in weighed_alike(tensors):
        moments = [tensor.denominator_moment for tensor in group]
        if alike.is_preconditioned:
            denominator = alike.roots(moments, like).add_(alike.eps)
            pieces.append(torch.where(denominator > 0, alike.relative_step / denominator, 0))
        else:
            pieces.append(flatten(moments, like).fill_(alike.relative_step))
    return torch.cat(pieces)


def is_at_floor(tensors: Sequence[AdaptiveTensor], like: Tensor) -> Tensor:
    """Mark the coordinates where ε rules the step, √v̂ ≤ ε, as one flat boolean vector."""
    pieces = []
    for alike, group in weighed_alike(tensors):
        roots = alike.roots([tensor.denominator_moment for tensor in group], like)
        pieces.append((roots <= alike.eps) if alike.is_preconditioned else torch.zeros_like(roots, dtype=torch.bool))
    return torch.cat(pieces)


def _weighing(tensor: AdaptiveTensor) -> Weighing:
    return Weighing(_relative_step(tensor), tensor.correction, tensor.eps, tensor.is_preconditioned)


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
        self.root = stability_weights(tensors, like).sqrt_()
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
