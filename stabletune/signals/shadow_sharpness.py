"""The sharpness ratio under weights that are not in use, from the products of a measurement under those that are.

In: the basis and projected matrix of the measurement, and both sets of weights. Out: a lower bound of S', without a
further product.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stabletune.signals.adam_state import AdamTensor
from stabletune.signals.curvature.hvp import flatten
from stabletune.signals.curvature.preconditioner import stability_weights
from stabletune.signals.sharpness_ratio import Sharpness

DEPENDENT = 1e-4
CHUNK = 1 << 18


def sharpness_lower_bound(measured: Sharpness, stretch: Tensor) -> float | None:
    """Bound S' = λ_max(W'^½ (H + λI) W'^½) from below with what is known of A = W^½ (H + λI) W^½.

    With X = W^½ Q, the basis in parameter coordinates, z = W'^-½ X c is a test vector of S' for every c, and
    zᵀ W'^½ (H + λI) W'^½ z = cᵀ Xᵀ (H + λI) X c = cᵀ QᵀAQ c, which does not depend on W', so that

    S' >= max over c of  (cᵀ QᵀAQ c) / (cᵀ Qᵀ (W/W') Q c):  equal to the Ritz value S where W' = W

    Coordinates with W = 0 hold nothing of X and drop out; vectors with a share where W' = 0 alone cannot be used.
    Directions in which the scaled right-hand matrix falls below 1e-4 are left out: that can only lower the bound.

    Args:
        measured: of the measurement, with k vectors of n entries.
        stretch: W/W', n entries: 0 where W = 0, infinite where W' = 0 alone.

    Returns:
        The bound; None where no direction is left.

    Cost: k² n multiplications in float64, no product.
    Source: Rayleigh-Ritz for a pencil: Parlett, The Symmetric Eigenvalue Problem, chapter 15.
    """
    gram = _weighted_gram(measured.basis, stretch)
    sizes = gram.diagonal()
    kept = (sizes > 0) & torch.isfinite(sizes)
    scale = sizes[kept].rsqrt()
    gram = gram[kept][:, kept] * scale[:, None] * scale
    values, vectors = torch.linalg.eigh(gram)
    whitening = (scale[:, None] * vectors[:, values > DEPENDENT]) * values[values > DEPENDENT].rsqrt()
    if whitening.shape[1] == 0:
        return None
    projected = whitening.T @ measured.projected[kept][:, kept] @ whitening
    return float(torch.linalg.eigvalsh(projected)[-1])


def weight_stretch(used: Sequence[AdamTensor], other: Sequence[AdamTensor], like: Tensor) -> Tensor:
    """Return W/W' of two states of the same parameters as one flat vector, 0/0 being 0."""
    weights = flatten([stability_weights(tensor) for tensor in used], like)
    stretch = weights / flatten([stability_weights(tensor) for tensor in other], like)
    return torch.where(weights > 0, stretch, torch.zeros_like(stretch))


def _weighted_gram(basis: Sequence[Tensor], stretch: Tensor) -> Tensor:
    """QᵀDQ in float64, a piece of the vectors at a time."""
    gram = torch.zeros(len(basis), len(basis), dtype=torch.float64)
    for start in range(0, stretch.numel(), CHUNK):
        piece = torch.stack([vector[start : start + CHUNK] for vector in basis]).double()
        scaled = torch.where(piece == 0, piece, piece * stretch[start : start + CHUNK])
        gram += (scaled @ piece.T).cpu()
    return gram
