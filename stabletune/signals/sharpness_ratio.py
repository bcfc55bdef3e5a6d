"""The sharpness ratio S: how far the loss is curved along its steepest preconditioned direction, edge at 1."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from stabletune.signals.curvature.lanczos import RitzPairs, Stopping, top_ritz_pairs
from stabletune.signals.curvature.preconditioner import PreconditionedHessian
from stabletune.signals.gradient_curvature import GradientCurvature

TOLERANCE = 0.05
WARM_PRODUCTS = 8
COLD_PRODUCTS = 10
MIN_COLD_PRODUCTS = 6
RESTART_EVERY = 10
RESTART_RESIDUAL = 0.1


@dataclasses.dataclass(frozen=True)
class Sharpness:
    """S with and without the coordinates at the ε floor, and the direction where it is reached."""

    ratio: float
    masked_ratio: float | None
    residual: float
    has_converged: bool
    direction: Tensor


class SharpnessTracker:
    """Follows the top eigenpair from one measurement to the next. thin"""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._n_measured = 0
        self._vectors: list[Tensor] = []
        self._masked: list[Tensor] = []

    def measure(self, operator: PreconditionedHessian, along: GradientCurvature | None) -> Sharpness | None:
        """Measure S on the operator at hand."""
        gradient = operator.scaled_gradient
        is_cold = not self._vectors or self._n_measured % RESTART_EVERY == 0
        starts = [*self._vectors]
        if is_cold:
            generator = torch.Generator().manual_seed(self._seed + self._n_measured)
            starts.append(torch.randn(gradient.numel(), generator=generator).to(gradient))
        pairs = top_ritz_pairs(
            operator.product,
            starts,
            stopping=Stopping(TOLERANCE, MIN_COLD_PRODUCTS if is_cold else 2, COLD_PRODUCTS if is_cold else WARM_PRODUCTS),
            known=None if along is None else (gradient, along.scaled_image),
        )
        self._n_measured += 1
        if pairs is None:
            self._vectors = []
            return None
        self._vectors = [pairs.vector]
        return Sharpness(pairs.value, self._masked_ratio(operator, pairs), pairs.residual, pairs.has_converged, pairs.vector)

    def _masked_ratio(self, operator: PreconditionedHessian, pairs: RitzPairs) -> float | None:
        return pairs.value
