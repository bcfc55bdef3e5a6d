"""The largest algebraic eigenvalue of a symmetric operator, from a few products.

In: the operator and starting directions (the last Ritz vector, the gradient). Out: the top Ritz pair with its residual.
Each round adds the residual of the top Ritz pair to the basis and solves the small projected problem: from one start
this is Lanczos with full reorthogonalization, from several it keeps what every start knew.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

NEGLIGIBLE = 1e-5


@dataclasses.dataclass(frozen=True)
class Stopping:
    """Stop once ‖r‖ ≤ tolerance · |θ|, between ``min_products`` and ``max_products``."""

    tolerance: float
    min_products: int
    max_products: int


@dataclasses.dataclass(frozen=True)
class RitzPairs:
    """The two largest Ritz pairs; ``residual`` is ‖A u - θ u‖ / |θ| of the first, a bound on its relative error."""

    value: float
    vector: Tensor
    second_vector: Tensor | None
    residual: float
    has_converged: bool
    n_products: int


class RitzBasis:
    """An orthonormal basis, its images under the operator, and the projected matrix in float64."""

    def __init__(self, product: Callable[[Tensor], Tensor]) -> None:
        self._product = product
        self._basis: list[Tensor] = []
        self._images: list[Tensor] = []
        self._projected = torch.zeros(0, 0, dtype=torch.float64)

    def __len__(self) -> int:
        return len(self._basis)

    def begin(self, direction: Tensor, image: Tensor) -> bool:
        """Add the first direction with its image, already known; False if it is zero or not finite."""
        norm = float(direction.norm())
        if not 0 < norm < float("inf"):
            return False
        self._append(direction / norm, image / norm)
        return True

    def extend(self, direction: Tensor) -> bool:
        """Add a direction, orthogonalized twice; False if it holds nothing new (no product is spent then)."""
        norm = float(direction.norm())
        if not 0 < norm < float("inf"):
            return False
        direction = direction / norm
        for _ in range(2):
            for vector in self._basis:
                direction = direction - torch.dot(vector, direction) * vector
        rest = float(direction.norm())
        if rest < NEGLIGIBLE:
            return False
        direction = direction / rest
        self._append(direction, self._product(direction))
        return True

    def _append(self, direction: Tensor, image: Tensor) -> None:
        self._basis.append(direction)
        self._images.append(image)
        row = torch.tensor([float(torch.dot(vector, image)) for vector in self._basis], dtype=torch.float64)
        size = len(self._basis)
        projected = torch.zeros(size, size, dtype=torch.float64)
        projected[:-1, :-1] = self._projected
        projected[-1, :] = projected[:, -1] = row
        self._projected = projected

    @property
    def is_finite(self) -> bool:
        """Whether every product so far was."""
        return bool(torch.isfinite(self._projected).all())

    def solve(self) -> tuple[Tensor, Tensor]:
        """Return Ritz values, largest first, and their coordinates as columns."""
        values, coordinates = torch.linalg.eigh(self._projected)
        return values.flip(0), coordinates.flip(1)

    def vector(self, coordinates: Tensor) -> Tensor:
        """Return the vector with these coordinates in the basis."""
        return _combine(self._basis, coordinates)

    def residual(self, value: float, coordinates: Tensor) -> Tensor:
        """Return A u - θ u for the Ritz pair with these coordinates."""
        return _combine(self._images, coordinates) - value * _combine(self._basis, coordinates)


def top_ritz_pairs(
    product: Callable[[Tensor], Tensor],
    starts: Sequence[Tensor],
    *,
    stopping: Stopping,
    known: tuple[Tensor, Tensor] | None = None,
) -> RitzPairs | None:
    """Find the largest algebraic eigenvalue λ_max, never the largest in magnitude.

    θ = max eig(QᵀAQ), u = Q s, r = A u - θ u; |λ - θ| ≤ ‖r‖ for some eigenvalue λ, and r/‖r‖ is the next direction.

    Args:
        product: x ↦ A x, A symmetric.
        starts: directions to begin with; zero, non-finite and dependent ones are skipped.
        stopping: when to stop.
        known: a first direction with its image, which costs no product here but counts as one.

    Returns:
        The top pair; None if no start is usable or a product is not finite.

    Cost: at most ``stopping.max_products`` products; 2 vectors held per product.
    Source: Parlett, The Symmetric Eigenvalue Problem, chapters 11 and 13.
    """
    basis = RitzBasis(product)
    if known is not None:
        basis.begin(*known)
    for start in starts[: stopping.max_products]:
        basis.extend(start)
    while len(basis):
        if not basis.is_finite:
            return None
        values, coordinates = basis.solve()
        value = float(values[0])
        rest = basis.residual(value, coordinates[:, 0])
        norm = float(rest.norm())
        residual = norm / abs(value) if value else (0.0 if norm == 0 else float("inf"))
        has_converged = residual <= stopping.tolerance
        is_done = has_converged and len(basis) >= stopping.min_products
        if is_done or len(basis) >= stopping.max_products or not basis.extend(rest):
            second = basis.vector(coordinates[:, 1]) if coordinates.shape[1] > 1 else None
            top = basis.vector(coordinates[:, 0])
            return RitzPairs(value, top, second, residual, has_converged, len(basis))
    return None


def _combine(vectors: Sequence[Tensor], coordinates: Tensor) -> Tensor:
    total = float(coordinates[0]) * vectors[0]
    for vector, weight in zip(vectors[1:], coordinates[1:].tolist(), strict=True):
        total.add_(vector, alpha=weight)
    return total
