"""The sharpness ratio S: how far the loss is curved along its steepest preconditioned direction, with the edge at 1.

In: the operator W^½ H W^½ of each measurement. Out: S with its error bound, with and without coordinates at the ε
floor. A tracker follows the top directions from one measurement to the next, which is what makes one cheap.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import torch
from torch import Tensor

from stabletune.signals.curvature.preconditioner import PreconditionedHessian, SymmetricOperator
from stabletune.signals.curvature.ritz import Estimate, estimate_top
from stabletune.signals.curvature.ritz_basis import Memory, RitzBasis
from stabletune.signals.frozen_curvature import FrozenCurvature
from stabletune.signals.gradient_curvature import GradientCurvature

TOLERANCE = 0.015
FINE_TOLERANCE = 0.01
NEAR_EDGE = 0.85
N_PAIRS = 3
RESTART_EVERY = 8
THOROUGH_RESTART_EVERY = 4
FEWEST_PRODUCTS = 4
FEWEST_FIRST_PRODUCTS = 6
FEWEST_THOROUGH_PRODUCTS = 8
MOST_PRODUCTS = 8
MOST_SETTLED_PRODUCTS = 12
RESTART_NOISE = 0.3
FIRST_OTHER_SHARE = 0.3
LARGEST_OTHER_SHARE = 0.9
LARGEST_SURPRISE, LARGEST_SURPRISE_OF_TWO = 0.1, 0.2
LEARNING_RATE = 0.2
NEGLIGIBLE_FLOOR_MASS = 1e-3


@dataclasses.dataclass(frozen=True)
class Sharpness:
    """S and the unit direction u (symmetric coordinates) where it is reached.

    ``foreseen`` is what the last measurement's pairs made it, under the weights of now; None where there are none.
    ``residual`` is ‖A u - θ u‖ / |θ| of the Ritz value θ behind S, a bound on its relative error where no other
    eigenvector has overtaken; ``has_converged`` says that S lies within the tolerance of θ. ``basis`` holds the
    directions whose products were made.
    """

    ratio: float
    foreseen: float | None
    residual: float
    has_converged: bool
    direction: Tensor
    basis: RitzBasis


class Effort(NamedTuple):
    """What one measurement takes: products between ``fewest`` and ``most``, until two tests hold.

    The estimate must lie within the tolerance of what is proven and, where more than one product is asked for, the last
    one must have changed that by less. ``largest_surprise`` is how far off the estimate may be from what was foreseen.
    """

    is_restart: bool
    tolerance: float
    largest_surprise: float
    fewest: int
    most: int


class SharpnessTracker:
    """Follows the top eigenpairs of an operator that changes a little from one measurement to the next.

    S = λ_max(W^½ (H + λI) W^½), W as in ``stability_weights``, by ``estimate_top``

    A measurement begins with the top vector that the last three make under the weights of now (``FrozenCurvature``),
    and ends once the estimate is within 1.5 % of what the products prove, 1 % where S is 0.85 or more. Every eighth
    measurement, and at the one after a measurement that did not converge, comes a restart: it takes in the gradient,
    makes at least four products, some of them in random directions (the first of all six), and goes on until one more
    changes S by less than the tolerance. So does an estimate that is a surprise, more than 10 % off what was
    foreseen, 20 % where the second vector was followed too; what is remembered stays a direction to look in then.

    An eigenvector that overtakes is unseen until then, unless it has been followed as the second one: on a tanh
    regression through its spikes 95 % of the readings were within 1 % of the dense eigenvalue without that, at 2.5
    products each; with it, at 3.2, 95 % were within 0.1 % and all within 1 %.

    Args:
        seed: of the private generator; global random states are not touched.
        is_thorough: whether every measurement follows the second vector too and settles as a restart does, with a
            restart of at least eight products every fourth time: all 180 readings of that run within 1 %.
        fine_from: the S from which the finer tolerance holds.
    """

    def __init__(self, seed: int = 0, *, is_thorough: bool = False, fine_from: float = NEAR_EDGE) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._is_thorough = is_thorough
        self._fine_from = fine_from
        self._restart_every = THOROUGH_RESTART_EVERY if is_thorough else RESTART_EVERY
        self.curvature: FrozenCurvature | None = None
        self._other_share = FIRST_OTHER_SHARE
        self._n_since_restart = 0

    @property
    def is_restart_due(self) -> bool:
        """Whether the next measurement starts anew, for which it needs the gradient's product."""
        return self.curvature is None or self._n_since_restart + 1 >= self._restart_every

    def measure(
        self, operator: SymmetricOperator, along: GradientCurvature | None, *, takes_second: bool = False
    ) -> Sharpness | None:
        """Measure S; None if a product is not finite.

        Args:
            operator: A, with the gradient at the same point.
            along: lends its Hessian product.
            takes_second: whether to make a product with the second vector too.

        Cost: mostly 1-3 products, 4-12 at a restart, where surprised or if thorough, one of them lent by ``along``.
        """
        foreseen = self._foreseen(operator)
        effort = self._effort(foreseen)
        self.curvature = None  # its vectors are not needed beside those foreseen
        basis = self._begin(operator, along, foreseen, effort)
        if (takes_second or self._is_thorough) and basis.memory is not None and len(basis.memory.values) > 1:
            if basis.extend(basis.memory.vectors[1]):
                effort = effort._replace(largest_surprise=LARGEST_SURPRISE_OF_TWO)
        found = self._refine(basis, operator.scaled_gradient, effort) if len(basis) else None
        if found is None:
            return None
        estimate, has_converged, is_restart = found
        vectors = estimate.vectors()
        self.curvature = FrozenCurvature.of(Memory(estimate.values, vectors), operator.root)
        self._n_since_restart = 0 if is_restart else self._n_since_restart + 1
        if not has_converged:
            self._n_since_restart = self._restart_every
        return Sharpness(
            ratio=estimate.value,
            foreseen=None if foreseen is None else foreseen.values[0],
            residual=estimate.residual,
            has_converged=has_converged,
            direction=vectors[0],
            basis=basis,
        )

    def _foreseen(self, operator: SymmetricOperator) -> Memory | None:
        if self.curvature is None or self.curvature.vectors.shape[1] != operator.scaled_gradient.numel():
            return None
        return self.curvature.under(operator.root)

    def _effort(self, foreseen: Memory | None) -> Effort:
        is_restart = self.is_restart_due or foreseen is None
        is_fine = self._is_thorough or (foreseen is not None and foreseen.values[0] >= self._fine_from)
        fewest = 1
        if is_restart and self._is_thorough:
            fewest = FEWEST_THOROUGH_PRODUCTS
        elif foreseen is None:
            fewest = FEWEST_FIRST_PRODUCTS
        elif is_restart or self._is_thorough:
            fewest = FEWEST_PRODUCTS
        return Effort(
            is_restart=is_restart,
            tolerance=FINE_TOLERANCE if is_fine else TOLERANCE,
            largest_surprise=LARGEST_SURPRISE,
            fewest=fewest,
            most=MOST_PRODUCTS if fewest == 1 else MOST_SETTLED_PRODUCTS,
        )

    def _begin(
        self, operator: SymmetricOperator, along: GradientCurvature | None, foreseen: Memory | None, effort: Effort
    ) -> RitzBasis:
        basis = RitzBasis(operator.product, operator.scaled_gradient, None if effort.is_restart else foreseen)
        if along is not None:
            basis.extend(operator.scaled_gradient, along.scaled_image)
        elif effort.is_restart:
            basis.extend(operator.scaled_gradient)
        if foreseen is None:
            basis.extend(self._noise(operator.scaled_gradient))
        else:
            basis.extend(foreseen.vectors[0])
        return basis

    def _refine(self, basis: RitzBasis, gradient: Tensor, effort: Effort) -> tuple[Estimate, bool, bool] | None:
        """Return the estimate, whether it has converged, and whether it was or became a restart."""
        proven: float | None = None
        while basis.is_finite:
            estimate = estimate_top(basis, n_pairs=N_PAIRS, other_share=self._other_share)
            if effort.fewest == 1 and _distance(estimate, basis.memory) > effort.largest_surprise:
                effort = effort._replace(is_restart=True, fewest=FEWEST_PRODUCTS, most=MOST_SETTLED_PRODUCTS)
                proven = estimate.proven
                if basis.extend(gradient):
                    continue
            gain = math.inf if proven is None else estimate.proven - proven
            is_gain_small = effort.fewest == 1 or gain <= effort.tolerance * abs(estimate.proven)
            is_exact_enough = estimate.correction <= effort.tolerance
            has_converged = is_exact_enough and is_gain_small and len(basis) >= effort.fewest
            if has_converged or len(basis) >= effort.most:
                return estimate, has_converged, effort.is_restart
            proven = estimate.proven
            direction = estimate.next_direction()
            if effort.is_restart and len(basis) < effort.fewest:
                direction = _unit(direction) + RESTART_NOISE * self._noise(gradient)
            if not basis.extend(direction):
                return estimate, is_exact_enough, effort.is_restart
            if not effort.is_restart:
                self._learn(float(basis.projected[-1, -1]), proven)
        return None

    def _learn(self, quotient: float, top: float) -> None:
        """Take note of what the direction just added turned out to hold, be it remembered or a residual."""
        if top > 0:
            share = min(max(quotient / top, 0.0), LARGEST_OTHER_SHARE)
            self._other_share += LEARNING_RATE * (share - self._other_share)

    def _noise(self, gradient: Tensor) -> Tensor:
        """A random unit vector on the coordinates that the loss uses, all of them where the gradient vanishes."""
        noise = torch.randn(gradient.numel(), generator=self._generator).to(gradient)
        is_used = gradient != 0
        return _unit(noise * is_used if bool(is_used.any()) else noise)


def _distance(estimate: Estimate, foreseen: Memory | None) -> float:
    if foreseen is None:
        return 0.0
    if foreseen.values[0] == 0:
        return math.inf if estimate.value else 0.0
    return abs(estimate.value / foreseen.values[0] - 1)


def _unit(vector: Tensor) -> Tensor:
    norm = torch.linalg.vector_norm(vector)
    return vector / norm if float(norm) > 0 else vector


class MaskedSharpnessTracker:
    """S of the problem without the coordinates at the ε floor, √v̂ ≤ ε, which can dominate it falsely.

    S_masked = λ_max(M A M), M the projector on the other coordinates; S_masked ≤ S. Where u has no weight on the floor,
    uᵀ M A M u = S, so that both agree and nothing is spent; only otherwise is the masked operator tracked by itself.
    """

    def __init__(self, seed: int = 1, *, is_thorough: bool = False) -> None:
        self._tracker = SharpnessTracker(seed, is_thorough=is_thorough)

    def is_free(self, floor: Tensor, unmasked: Sharpness) -> bool:
        """Whether the floor has no part in S, so that both agree."""
        return float(unmasked.direction[floor].square().sum()) <= NEGLIGIBLE_FLOOR_MASS

    def measure(self, operator: PreconditionedHessian, floor: Tensor, unmasked: Sharpness) -> float | None:
        """Measure S without the coordinates on the ``floor``; None if that leaves none or it did not converge."""
        if self.is_free(floor, unmasked):
            return unmasked.ratio
        if bool(floor.all()):
            return None
        masked = self._tracker.measure(operator.masked(~floor), None)
        return masked.ratio if masked is not None and masked.has_converged else None
