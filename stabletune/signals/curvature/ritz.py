"""The top of a symmetric operator's spectrum, from the few products that were made and what was known before.

In: products with the operator, and the eigenvectors of a little while ago. Out: an estimate of the largest algebraic
eigenvalue and its vector, how far the estimate goes beyond what the products alone prove, and the direction in which
the next product would tell most.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stabletune.signals.curvature.ritz_basis import Matrix, Memory, RitzBasis

MOSTLY_KNOWN = 0.05
LEAST_LEFT = 0.5
N_RESIDUALS = 3
DEPENDENT = 1e-4  # of a scaled Gram matrix: well above what rounding leaves of it in float32


@dataclasses.dataclass(frozen=True)
class Estimate:
    """The top of the spectrum as the products prove it, and as it probably is.

    ``proven`` is the top Ritz value θ, a lower bound of the largest eigenvalue; ``residual`` is ‖A u - θ u‖ / |θ|, so
    that some eigenvalue lies in θ (1 ± residual), told down to the rounding of dot products; ``values`` are the
    estimated top ones, largest first. Vectors are held as ``coordinates``, one row each, in the rows of ``frame``;
    ``outside`` is the part of the top one that no product was made with.
    """

    proven: float
    residual: float
    values: tuple[float, ...]
    coordinates: Matrix
    outside: Matrix
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
        return self._combine(self.outside)[0]

    def _combine(self, coordinates: Matrix) -> Tensor:
        total = torch.zeros(len(coordinates), self.frame[0].shape[1]).to(self.frame[0])
        pieces = np.split(coordinates, np.cumsum([len(part) for part in self.frame])[:-1], axis=1)
        for piece, part in zip(pieces, self.frame, strict=True):
            if piece.any():
                total.addmm_(torch.from_numpy(piece.copy()).to(part), part)
        return total


def estimate_top(basis: RitzBasis, *, n_pairs: int, other_share: float) -> Estimate:
    """Estimate the largest algebraic eigenpairs from the basis and, beyond it, from what it remembers.

    M = [ Θ  C ]     Θ: Ritz values of the products made;  Z: remembered vectors and the first three residuals,
        [ Cᵀ D ]     orthonormalized beyond the basis;  C = (A U)ᵀ Z, exact;  D: remembered values, or other_share · θ

    Only the diagonal block D is not measured, and it enters the top eigenvalue in second order, through C: with one
    product this is θ + Σ c_j² / (θ - d_j) + ..., where a plain Rayleigh quotient would stop at θ. A remembered rival
    that is coupled to the top vector makes the correction large, which asks for a product there.

    Args:
        basis: at least one vector; remembered values are rescaled by how the top one has changed.
        n_pairs: how many pairs to return at most.
        other_share: d / θ of directions nothing is known about; d = 0 where θ is negative.

    Returns:
        The estimate.

    Cost: algebra on matrices of 2k + m rows for k products and m remembered vectors; no pass over vectors.
    """
    values, ritz = _descending(basis.projected)
    top, size = values[0], len(values)
    starts = _beyond(basis, ritz)
    gram = starts @ basis.gram @ starts.T
    n_residuals = min(N_RESIDUALS, size)
    known = _remembered_values(basis.memory, top) + [other_share * max(top, 0.0)] * n_residuals
    unit, diagonal = _orthonormal(gram, known, floor=1e-3 * abs(top), n_exact=n_residuals)
    _, vectors, images = basis.places
    coupling = ritz.T @ basis.gram[images] @ starts.T @ unit.T
    found, mixed = _descending(np.block([[np.diag(values), coupling], [coupling.T, np.diag(diagonal)]]))
    outside = mixed[size:, :n_pairs].T @ unit @ starts
    coordinates = outside.copy()
    coordinates[:, vectors] += mixed[:size, :n_pairs].T @ ritz.T
    residual = math.sqrt(max(0.0, float(gram[-n_residuals, -n_residuals])))
    return Estimate(
        proven=top,
        residual=residual / abs(top) if top else (math.inf if residual else 0.0),
        values=tuple(found[:n_pairs]),
        coordinates=coordinates,
        outside=outside[:1],
        frame=basis.frame,
    )


def _beyond(basis: RitzBasis, ritz: Matrix) -> Matrix:
    """What lies outside of the basis, as rows of coordinates in the frame.

    Remembered vectors z and the images A u of the first Ritz vectors, each less its part in the basis: y - QᵀQ y, the
    residual for an image. With that part as measured: rounding leaves an operator a little asymmetric.
    """
    remembered, vectors, images = basis.places
    n_remembered, mixing = len(basis.frame[0]), ritz[:, :N_RESIDUALS].T
    starts = np.zeros((n_remembered + len(mixing), len(basis.gram)))
    starts[:n_remembered, remembered] = np.eye(n_remembered)
    starts[:n_remembered, vectors] = -basis.gram[remembered, vectors]
    starts[n_remembered:, images] = mixing
    starts[n_remembered:, vectors] = -mixing @ basis.gram[vectors, images].T
    return starts


def _remembered_values(memory: Memory | None, top: float) -> list[float]:
    """The remembered values, rescaled by how the top one has changed."""
    if memory is None:
        return []
    scale = min(max(top / memory.values[0], 0.5), 2.0) if memory.values[0] * top > 0 else 1.0
    return [min(scale * value, abs(top)) for value in memory.values]


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


def ritz_pairs(projected: Matrix, gram: Matrix) -> tuple[NDArray[np.float64], Matrix] | None:
    """Solve projected c = μ gram c, largest μ first: the Ritz values of a span whose rows are not orthonormal.

    Args:
        projected: X B Xᵀ of the operator B on the rows X, (k, k).
        gram: X C Xᵀ of the metric C, (k, k).

    Returns:
        Values, and rows of coordinates with cᵀ gram c = 1, fewer than k where directions are dependent, scaled ``gram``
        below 1e-4; None where ``gram`` is not finite or a row has no length.
    """
    lengths = np.sqrt(np.maximum(np.diagonal(gram), 0.0))
    if not (np.isfinite(gram).all() and (lengths > 0).all()):
        return None
    spread, axes = np.linalg.eigh(gram / np.outer(lengths, lengths))
    is_new = spread > DEPENDENT
    whitening = axes[:, is_new] / np.sqrt(spread[is_new]) / lengths[:, None]
    values, mixing = np.linalg.eigh(whitening.T @ projected @ whitening)
    return values[::-1].copy(), (whitening @ mixing)[:, ::-1].T.copy()


def _descending(matrix: Matrix) -> tuple[list[float], Matrix]:
    values, vectors = np.linalg.eigh(matrix)
    return values[::-1].tolist(), np.ascontiguousarray(vectors[:, ::-1])
