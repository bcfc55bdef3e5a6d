"""The sharpness ratio under weights that are not in use, from the products of a measurement under those that are.

In: the basis and its images from the measurement, and both sets of weights. Out: a lower bound of S' and an estimate,
without a further product.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from stabletune.signals.curvature.preconditioner import stability_weights
from stabletune.signals.curvature.ritz import ritz_pairs
from stabletune.signals.curvature.ritz_basis import Matrix, RitzBasis
from stabletune.signals.optimizer_state.adaptive_tensor import AdaptiveTensor

CHUNK = 1 << 18


@dataclasses.dataclass(frozen=True)
class SharpnessBound:
    """What known products tell of S': it is at least ``lower_bound``, and near ``estimate`` (None where undefined)."""

    lower_bound: float
    estimate: float | None


def bound_sharpness(basis: RitzBasis, stretch: Tensor) -> SharpnessBound | None:
    """Bound S' = λ_max(A'), A' = W'^½ (H + λI) W'^½, from Q and AQ of A = W^½ (H + λI) W^½.

    For x = W^½ Q c, z = W'^-½ x is a test vector of A' with zᵀA'z = cᵀ QᵀAQ c, whatever W' is, and A'z is known too:

    lower bound: μ = max over c of (cᵀ QᵀAQ c) / (cᵀ Qᵀ (W/W') Q c), which is the top Ritz value where W' = W
    estimate:    μ + σ²/(μ - m),  σ² = ‖A'z‖² - μ² with ‖z‖ = 1: no spectrum within [m, μ + that] has more variance. A
                 bound too if λ_min(A') >= m = min(0, the least Ritz value), so too high only where A' has large
                 negative eigenvalues

    Where W = 0, x is 0; vectors of Q with a share where W' = 0 alone cannot be used, nor directions in which the scaled
    right-hand matrix is below 1e-4. Both can only lower the bound.

    Args:
        basis: k orthonormal vectors of n entries, Q, and what A makes of them.
        stretch: W/W', n entries: 0 where W = 0, infinite where W' = 0 alone.

    Returns:
        Both; None where no direction is left.

    Cost: k² n multiplications in float64, no product.
    Source: Parlett, The Symmetric Eigenvalue Problem, chapter 15; Bhatia, Davis, Amer. Math. Monthly 107 (2000).
    """
    gram = _weighted_gram(basis.vectors(), stretch)
    kept = (gram.diagonal() > 0) & np.isfinite(gram.diagonal())
    found = ritz_pairs(basis.projected[kept][:, kept], gram[kept][:, kept]) if kept.any() else None
    if found is None:
        return None
    values, coordinates = found
    best = np.zeros(len(gram))
    best[kept] = coordinates[0]
    top, least = float(values[0]), min(0.0, float(values[-1]))
    variance = max(0.0, _squared_norm(basis.images(), best, stretch) - top**2)
    return SharpnessBound(top, top + variance / (top - least) if top > least else None)


def weight_stretch(used: Sequence[AdaptiveTensor], other: Sequence[AdaptiveTensor], like: Tensor) -> Tensor:
    """Return W/W' of two states of the same parameters as one flat vector, 0/0 being 0."""
    weights = stability_weights(used, like)
    stretch = weights / stability_weights(other, like)
    return torch.where(weights > 0, stretch, torch.zeros_like(stretch))


def _weighted_gram(vectors: Tensor, stretch: Tensor) -> Matrix:
    """QᵀDQ in float64, a piece of the vectors at a time."""
    gram: Matrix = np.zeros((len(vectors), len(vectors)))
    for start in range(0, stretch.numel(), CHUNK):
        piece = vectors[:, start : start + CHUNK].double()
        scaled = torch.where(piece == 0, piece, piece * stretch[start : start + CHUNK])
        gram += (scaled @ piece.T).cpu().numpy()
    return gram


def _squared_norm(images: Tensor, coordinates: Matrix, stretch: Tensor) -> float:
    """‖A'z‖² = ‖(W'/W)^½ AQ c‖², without the coordinates where W = 0."""
    total = 0.0
    for start in range(0, stretch.numel(), CHUNK):
        piece = images[:, start : start + CHUNK].double()
        squares = (torch.from_numpy(coordinates).to(piece) @ piece).square() / stretch[start : start + CHUNK]
        total += float(squares[stretch[start : start + CHUNK] > 0].sum())
    return total
