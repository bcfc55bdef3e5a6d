"""The top of a symmetric operator's spectrum, from the few products that were made and what was known before.

In: products with the operator, and the eigenvectors of a little while ago. Out: an estimate of the largest algebraic
eigenvalue and its vector, how far the estimate goes beyond what the products alone prove, and the direction in which
the next product would tell most.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Matrix = NDArray[np.float64]

NOTHING_NEW = 1e-5
MOSTLY_KNOWN = 0.05
LEAST_LEFT = 0.5
N_RESIDUALS = 3


@dataclasses.dataclass(frozen=True)
class Memory:
    """Eigenpairs of an earlier, similar operator: values, largest first, and orthonormal vectors (k, n)."""

    values: tuple[float, ...]
    vectors: Tensor


class RitzBasis:
    """Orthonormal rows Q (k, n), the operator projected on them, and what their images hold beyond them, (k, n)."""

    def __init__(self, product: Callable[[Tensor], Tensor], like: Tensor) -> None:
        self._product = product
        self.vectors = like.new_empty(0, like.numel())
        self.remainders = like.new_empty(0, like.numel())
        self.projected: Matrix = np.zeros((0, 0))

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def is_finite(self) -> bool:
        """Whether every product so far was."""
        return bool(np.isfinite(self.projected).all())

    def extend(self, direction: Tensor, image: Tensor | None = None) -> bool:
        """Add a direction, orthogonalized twice; False if it holds nothing new (no product is spent then).

        Args:
            direction: (n,), of any length.
            image: its image, if known; only for the first direction, and instead of a product.
        """
        norm = _norm(direction)
        if not 0 < norm < math.inf:
            return False
        direction = direction / norm
        for _ in range(2 if len(self) else 0):
            direction = direction - self.vectors.T @ (self.vectors @ direction)
        rest = _norm(direction)
        if rest < NOTHING_NEW:
            return False
        direction = direction / rest
        self._append(direction, self._product(direction) if image is None else image / norm)
        return True

    def images(self) -> Tensor:
        """Return A Q, (k, n): the image of each row."""
        return torch.from_numpy(self.projected).to(self.vectors) @ self.vectors + self.remainders

    def _append(self, direction: Tensor, image: Tensor) -> None:
        size = len(self)
        vectors = torch.cat([self.vectors, direction[None]])
        overlaps = vectors @ image
        remainder = image - vectors.T @ overlaps
        if size:
            self.remainders.addr_(self.remainders @ direction, direction, alpha=-1)
        projected = np.zeros((size + 1, size + 1))
        projected[:-1, :-1] = self.projected
        projected[-1, :] = projected[:, -1] = overlaps.double().cpu().numpy()
        self.projected = projected
        self.vectors = vectors
        self.remainders = torch.cat([self.remainders, remainder[None]])


@dataclasses.dataclass(frozen=True)
class Estimate:
    """The top of the spectrum as the products prove it, and as it probably is.

    ``proven`` is the top Ritz value θ, a lower bound of the largest eigenvalue; ``residual`` is ‖A u - θ u‖ / |θ|, so
    that some eigenvalue lies in θ (1 ± residual); ``values`` are the estimated top ones, largest first. Vectors are
    held as ``coordinates``, one row each, in the rows of ``frame``: the basis, the memory, the remainders.
    """

    proven: float
    residual: float
    values: tuple[float, ...]
    coordinates: Matrix
    frame: tuple[Tensor, ...]

    @property
    def value(self) -> float:
        """The estimate of the largest eigenvalue."""
        return self.values[0]

    @property
    def correction(self) -> float:
        """How far the estimate lies above the proven value, relative to the estimate."""
        gap = self.value - self.proven
        if gap <= 0:
            return 0.0
        return gap / abs(self.value) if self.value else math.inf

    def vectors(self) -> Tensor:
        """Return the estimated eigenvectors, (k, n)."""
        return self._combine(self.coordinates)

    def next_direction(self) -> Tensor:
        """Return where the correction is sought: the part of the top vector outside of the basis, (n,)."""
        outside = self.coordinates[:1].copy()
        outside[:, : len(self.frame[0])] = 0.0
        return self._combine(outside)[0]

    def _combine(self, coordinates: Matrix) -> Tensor:
        sizes = [len(part) for part in self.frame]
        pieces = np.split(coordinates, np.cumsum(sizes)[:-1], axis=1)
        used = [(c, part) for c, part in zip(pieces, self.frame, strict=True) if c.any()]
        total = torch.zeros(len(coordinates), self.frame[0].shape[1]).to(self.frame[0])
        for piece, part in used:
            total.addmm_(torch.from_numpy(piece.copy()).to(part), part)
        return total


def estimate_top(basis: RitzBasis, memory: Memory | None, *, n_pairs: int, other_share: float) -> Estimate:
    """Estimate the largest algebraic eigenpairs from the basis and, beyond it, from remembered pairs.

    M = [ Θ  C ]     Θ: Ritz values of the products made;  Z: remembered vectors and the first three residuals,
        [ Cᵀ D ]     orthonormalized beyond the basis;  C = (A U)ᵀ Z, exact;  D: remembered values, or other_share · θ

    Only the diagonal block D is not measured, and it enters the top eigenvalue in second order, through C: with one
    product this is θ + Σ c_j² / (θ - d_j) + ..., where a plain Rayleigh quotient would stop at θ. A remembered rival
    that is coupled to the top vector makes the correction large, which asks for a product there.

    Args:
        basis: at least one vector.
        memory: pairs of the operator as it was, rescaled here by how the top value has changed; None for none.
        n_pairs: how many pairs to return at most.
        other_share: d / θ of directions nothing is known about; d = 0 where θ is negative.

    Returns:
        The estimate.

    Cost: products of at most 3 + k by 3 + 2k rows of length n for k basis vectors, no product with the operator.
    """
    values, ritz = _descending(basis.projected)
    top, size = values[0], len(values)
    frame, gram, couplings, starts, known = _beyond(basis, memory, ritz, top)
    known += [other_share * max(top, 0.0)] * (len(starts) - len(known))
    n_residuals = min(N_RESIDUALS, size)
    unit, diagonal = _orthonormal(gram, known, floor=1e-3 * abs(top), n_exact=n_residuals)
    coupling = ritz.T @ couplings @ unit.T
    found, mixed = _descending(np.block([[np.diag(values), coupling], [coupling.T, np.diag(diagonal)]]))
    coordinates = mixed[size:, :n_pairs].T @ unit @ starts
    coordinates[:, :size] += mixed[:size, :n_pairs].T @ ritz.T
    residual = math.sqrt(max(0.0, float(gram[-n_residuals, -n_residuals])))
    return Estimate(
        proven=top,
        residual=residual / abs(top) if top else (math.inf if residual else 0.0),
        values=tuple(found[:n_pairs]),
        coordinates=coordinates,
        frame=frame,
    )


def _beyond(
    basis: RitzBasis, memory: Memory | None, ritz: Matrix, top: float
) -> tuple[tuple[Tensor, ...], Matrix, Matrix, Matrix, list[float]]:
    """What lies outside of the basis: remembered vectors less their part in it, then residuals of the Ritz vectors.

    Returns the frame (basis, memory, remainders), the Gram matrix of what lies outside, the products of the remainders
    with it, its coordinates in the frame, and what is known of its diagonal.
    """
    size = len(basis)
    among = _rows(basis.remainders, basis.remainders)
    mixing = ritz[:, :N_RESIDUALS].T
    if memory is None:
        starts = np.hstack([np.zeros((len(mixing), size)), mixing])
        return (basis.vectors, basis.remainders), mixing @ among @ mixing.T, among @ mixing.T, starts, []
    inside, across = _rows(memory.vectors, basis.vectors), _rows(memory.vectors, basis.remainders)
    n_kept = len(memory.vectors)
    mixed = across @ mixing.T
    gram = np.block([[np.eye(n_kept) - inside @ inside.T, mixed], [mixed.T, mixing @ among @ mixing.T]])
    starts = np.block(
        [
            [-inside, np.eye(n_kept), np.zeros((n_kept, size))],
            [np.zeros((len(mixing), size + n_kept)), mixing],
        ]
    )
    scale = min(max(top / memory.values[0], 0.5), 2.0) if memory.values[0] * top > 0 else 1.0
    known = [min(scale * value, abs(top)) for value in memory.values]
    frame = (basis.vectors, memory.vectors, basis.remainders)
    return frame, gram, np.hstack([across.T, among @ mixing.T]), starts, known


def _orthonormal(gram: Matrix, known: Sequence[float], *, floor: float, n_exact: int) -> tuple[Matrix, list[float]]:
    """Orthonormalize vectors given their Gram matrix; what is mostly known or too short is left out.

    Remembered vectors had length 1; the last ``n_exact`` are residuals, which count from ``floor`` on.
    """
    rows = np.zeros((0, len(gram)))
    diagonal = []
    for index in range(len(gram)):
        row = np.eye(len(gram))[index]
        for _ in range(2):
            row = row - (rows @ (gram @ row)) @ rows
        norm = math.sqrt(max(0.0, float(row @ gram @ row)))
        whole = math.sqrt(max(0.0, float(gram[index, index])))
        is_residual = index >= len(gram) - n_exact
        if norm > (max(floor, MOSTLY_KNOWN * whole) if is_residual else LEAST_LEFT):
            rows = np.vstack([rows, row / norm])
            diagonal.append(known[index])
    return rows, diagonal


def _descending(matrix: Matrix) -> tuple[list[float], Matrix]:
    values, vectors = np.linalg.eigh(matrix)
    return values[::-1].tolist(), np.ascontiguousarray(vectors[:, ::-1])


def _rows(left: Tensor, right: Tensor) -> Matrix:
    products: Matrix = (left @ right.T).double().cpu().numpy()
    return products


def _norm(vector: Tensor) -> float:
    return float(torch.linalg.vector_norm(vector))
