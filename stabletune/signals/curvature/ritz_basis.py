"""What an eigenvalue solver holds: directions with their images, beside what is remembered of a similar operator.

In: products with a symmetric operator. Out: vectors, and every dot product between them, so that an estimate needs
algebra on small matrices only.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Matrix = NDArray[np.float64]

NOTHING_NEW = 1e-5
ROOM = 4  # products to a block: most readings need no more
CANCELLED = 0.7  # of a length, below which one more pass of Gram-Schmidt is due


@dataclasses.dataclass(frozen=True)
class Memory:
    """Eigenpairs of an earlier, similar operator: values, largest first, and orthonormal vectors (k, n)."""

    values: tuple[float, ...]
    vectors: Tensor


class RitzBasis:
    """Orthonormal rows Q (k, n) with their images A Q, beside remembered vectors Z (m, n).

    Held as one frame, Z and then q_1, A q_1, q_2, A q_2, ..., whose ``gram`` matrix grows with each product: whatever
    an estimate needs is then algebra on small matrices, and a product takes one pass over the frame. The pairs lie in
    blocks of four, so that nothing is copied as the basis grows.

    Args:
        product: A x.
        like: any vector of n entries, for its precision and device.
        memory: what to remember; None for nothing.
    """

    def __init__(self, product: Callable[[Tensor], Tensor], like: Tensor, memory: Memory | None = None) -> None:
        self._product = product
        self.memory = memory
        self._like = like
        self._remembered = like.new_empty(0, like.numel()) if memory is None else memory.vectors
        self._blocks: list[Tensor] = []
        self._size = 0
        self.gram: Matrix = np.eye(len(self._remembered))

    def __len__(self) -> int:
        return self._size

    @property
    def is_finite(self) -> bool:
        """Whether every product so far was."""
        return bool(np.isfinite(self.gram).all())

    def vectors(self) -> Tensor:
        """Return a copy of Q, (k, n)."""
        return torch.cat([part[::2] for part in self.frame[1:]])

    def images(self) -> Tensor:
        """Return a copy of A Q, (k, n)."""
        return torch.cat([part[1::2] for part in self.frame[1:]])

    @property
    def frame(self) -> tuple[Tensor, ...]:
        """All that a combination can be made of: Z, and blocks of vectors and images by turns, 2 k rows in all."""
        starts = range(0, 2 * self._size, 2 * ROOM)
        return self._remembered, *(
            block[: 2 * self._size - start] for block, start in zip(self._blocks, starts, strict=True)
        )

    @property
    def places(self) -> tuple[slice, slice, slice]:
        """Where Z, Q and A Q stand in the frame."""
        n_remembered = len(self._remembered)
        return slice(0, n_remembered), slice(n_remembered, None, 2), slice(n_remembered + 1, None, 2)

    @property
    def projected(self) -> Matrix:
        """Q A Qᵀ, (k, k); each entry from the later image."""
        _, vectors, images = self.places
        upper = np.triu(self.gram[vectors, images])
        return upper + np.triu(upper, 1).T

    def extend(self, direction: Tensor, image: Tensor | None = None) -> bool:
        """Add a direction, orthogonalized; False if it holds nothing new (no product is spent then).

        Args:
            direction: (n,), of any length.
            image: its image, if known; only for the first direction, and instead of a product.
        """
        length = _norm(direction)
        if not 0 < length < math.inf:
            return False
        before, rest = length, length
        while self._size:
            direction = self._outside(direction)
            before, rest = rest, _norm(direction)
            if rest < NOTHING_NEW * length:
                return False
            if rest > CANCELLED * before:
                break
        self._append(direction / rest, None if image is None else image / length)
        return True

    def _outside(self, direction: Tensor) -> Tensor:
        parts = [part[::2] for part in self.frame[1:]]
        overlaps = [part @ direction for part in parts]
        for part, overlap in zip(parts, overlaps, strict=True):
            direction = torch.addmv(direction, part.T, overlap, alpha=-1)
        return direction

    def _append(self, unit: Tensor, image: Tensor | None) -> None:
        place = 2 * self._size % (2 * ROOM)
        if place == 0:
            self._blocks.append(self._like.new_empty(2 * ROOM, self._like.numel()))
        pair = self._blocks[-1][place : place + 2]
        pair[0] = unit
        pair[1] = self._product(unit) if image is None else image
        self._size += 1
        columns = torch.cat([part @ pair.T for part in self.frame]).double().cpu().numpy()
        size = len(columns)
        gram = np.zeros((size, size))
        gram[:-2, :-2] = self.gram
        gram[:, -2:] = columns
        gram[-2:, :] = columns.T
        self.gram = gram


def _norm(vector: Tensor) -> float:
    return float(torch.linalg.vector_norm(vector))
