"""The raw sharpness λ_max(H): how far the loss itself is curved, whatever the optimizer makes of it.

In: the loss graph of each measurement. Out: the largest eigenvalue of its Hessian. Beside S it tells a landscape that
sharpens, where both rise, from a preconditioner that has gone stale, where S rises alone.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from stabletune.signals.curvature.hvp import LossGraph
from stabletune.signals.sharpness_ratio import SharpnessTracker

SQUARED_WITHIN_RANGE = 0.4  # as a power of the largest number: half, less what sums of squares need


class ScaledHessian:
    """The symmetric operator H / unit on flat vectors, unit a power of two.

    Unlike S, raw curvature has no natural size, and residuals enter squared: in float32 those of a λ beyond 1e-23 to
    1e19 are lost, which would pass for convergence.

    Args:
        graph: the loss and its derivatives, of the negative loss for an optimizer that maximizes.
        unit: as measured before; None to take it from the first product that does not vanish.
    """

    def __init__(self, graph: LossGraph, unit: float | None) -> None:
        self._graph = graph
        self.unit = unit
        self.scaled_gradient = graph.gradient()
        self.root: Tensor | None = None
        self.n_products = 0

    @property
    def largest(self) -> float:
        """The size, in units, up to which squares can be told in this precision; 1 / largest down to which."""
        return float(torch.finfo(self.scaled_gradient.dtype).max ** SQUARED_WITHIN_RANGE)

    def product(self, vector: Tensor) -> Tensor:
        """Return H x / unit; not finite where it is too large for its unit."""
        self.n_products += 1
        image = self._graph.product(vector)
        size = float(image.abs().max())
        if self.unit is None and 0 < size < math.inf:
            self.unit = 2.0 ** (math.frexp(size)[1] - 1)
        unit = self.unit or 1.0
        return image / unit if size <= self.largest * unit else torch.full_like(image, math.inf)


class RawSharpnessTracker:
    """Follows the top eigenvector of the raw Hessian from one measurement to the next.

    sharpness = λ_max(H), the largest algebraic eigenvalue, of the raw loss: no weights, no decay of either kind

    The edge of gradient descent is 2/η; Adam's spikes need no change of it: on L = θ²/2 it is 1 throughout while S
    passes 1. Coordinates that the loss does not use are left out.

    Args:
        is_thorough: see ``SharpnessTracker``; 1.5 % is the tolerance otherwise, at any size.

    Source: arXiv:2207.14484, section 2, for that edge.
    """

    def __init__(self, *, is_thorough: bool = False) -> None:
        self._is_thorough = is_thorough
        self._tracker = self._from_nothing()
        self._unit: float | None = None

    def measure(self, graph: LossGraph) -> tuple[float | None, int]:
        """Return the sharpness, None where it is not finite or did not converge, and how many products it took.

        Cost: that of ``SharpnessTracker.measure``: mostly 1-3 products, up to 12 at a restart.
        """
        hessian = ScaledHessian(graph, self._unit)
        found = self._tracker.measure(hessian, None)
        self._unit = hessian.unit
        if found is None or 0 < abs(found.ratio) < 1 / hessian.largest:  # the next one takes a unit of its own
            self._tracker, self._unit = self._from_nothing(), None
            return None, hessian.n_products
        value = found.ratio * (hessian.unit or 1.0)
        return value if found.has_converged and math.isfinite(value) else None, hessian.n_products

    def _from_nothing(self) -> SharpnessTracker:
        return SharpnessTracker(seed=2, is_thorough=self._is_thorough, fine_from=math.inf)
