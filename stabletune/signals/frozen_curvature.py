"""What the top of the spectrum becomes when only the weights change: nearly free, and no measurement.

In: the top eigenpairs of a measurement, and the weights W of a later step. Out: the top pairs for the same Hessian and
those weights. The tracker starts from them, and the monitor asks between readings how close S has come to the edge.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from stabletune.signals.curvature.preconditioner import weighed_alike
from stabletune.signals.curvature.ritz import ritz_pairs
from stabletune.signals.curvature.ritz_basis import Memory
from stabletune.signals.optimizer_state.adaptive_tensor import AdaptiveTensor


@dataclasses.dataclass(frozen=True)
class FrozenCurvature:
    """Rows x_i = W^½ u_i of the top eigenpairs, so that x_iᵀ (H + λI) x_j = S_i δ_ij whatever becomes of W.

    ``values`` are the S_i, largest first; ``vectors`` the x_i, (k, n), in the coordinates of the parameters.
    """

    values: tuple[float, ...]
    vectors: Tensor

    @classmethod
    def of(cls, pairs: Memory, root: Tensor | None) -> FrozenCurvature:
        """Take pairs in symmetric coordinates out of them, by W^½, (n,); None where there are no weights."""
        return cls(pairs.values, pairs.vectors if root is None else pairs.vectors * root)

    def under(self, root: Tensor | None) -> Memory | None:
        """Return the top pairs that the span of the x_i holds under other weights, by Rayleigh and Ritz.

        max over c of  Σ c_i² S_i / cᵀ G c,  G_ij = x_iᵀ W'⁻¹ x_j

        While the Hessian stays, these are lower bounds, and the span matters more than its first vector: v̂ rescales
        the coordinates unevenly, so that another mixture is on top. Through a spike of a tanh network on the diabetes
        data, 20-40 steps, a product with the first of these, from exact pairs, gave S within 0.5 %; the top vector as
        it was had lost it.

        Args:
            root: W'^½, (n,); None where there are no weights.

        Returns:
            Values and orthonormal vectors in the new symmetric coordinates; None where these rows have no such length
            any more: a coordinate of theirs that does not move now, too large or too small numbers.

        Cost: four passes over k vectors, no product.
        """
        if root is None:
            rows = self.vectors
        else:
            is_still = root <= 0
            if bool(self.vectors[:, is_still].any()):
                return None
            rows = torch.where(is_still, 0, self.vectors / root)
        found = ritz_pairs(np.diag(self.values), (rows @ rows.T).double().cpu().numpy())
        if found is None:
            return None
        values, coordinates = found
        return Memory(tuple(values.tolist()), torch.from_numpy(coordinates).to(rows) @ rows)


@dataclasses.dataclass(frozen=True)
class Foresight:
    """``FrozenCurvature`` with the parameters it belongs to, in the order of its coordinates."""

    curvature: FrozenCurvature
    params: tuple[Tensor, ...]

    def ratio_now(self, tensors: Sequence[AdaptiveTensor]) -> float | None:
        """Return what S would be if only the step had changed: the learning rate, v̂, the clip factor.

        Args:
            tensors: the optimizer's view now.

        Returns:
            The ratio; None where a parameter of the measurement is gone or does not move any more.

        Cost: three passes over k vectors, and those of ``Weighing.inverse_weights``.
        """
        by_param = {id(tensor.param): tensor for tensor in tensors}
        if any(id(param) not in by_param for param in self.params):
            return None
        gram = np.zeros((len(self.curvature.values),) * 2)
        start = 0
        for alike, group in weighed_alike([by_param[id(param)] for param in self.params]):
            moments = [tensor.denominator_moment for tensor in group]
            size = sum(moment.numel() for moment in moments)
            rows = self.curvature.vectors[:, start : start + size]
            start += size
            if alike.relative_step > 0:
                gram += ((rows * alike.inverse_weights(moments, rows)) @ rows.T).double().cpu().numpy()
            elif bool(rows.any()):
                return None
        found = ritz_pairs(np.diag(self.curvature.values), gram)
        return None if found is None else float(found[0][0])


def fastest_growth(tensors: Sequence[AdaptiveTensor]) -> float:
    """Return the largest d log S / dt that v̂ alone gives, without new gradients: -½ log(v̂_{t+1} / v̂_t).

    v̂_{t+1} / v̂_t = b2 / (b2 + s),  s = (1-b2) / (1-b2^t)  with bias correction and 1-b2 without: what a gradient of now
    weighs in v̂, after a reset too; 0 for a sum that never decays
    """
    rates = [0.0]
    for tensor in tensors:
        if 0 < tensor.beta2 < 1:
            rates.append(0.5 * math.log1p(tensor.entry_share / tensor.correction / tensor.beta2))
    return max(rates)
