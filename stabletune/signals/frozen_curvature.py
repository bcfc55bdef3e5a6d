"""What S becomes between two measurements, as far as the optimizer's own state tells: nearly free, and no measurement.

In: S with its direction, and the optimizer's view then and now. Out: S for the same Hessian and today's step.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from stabletune.signals.curvature.preconditioner import squared_length
from stabletune.signals.optimizer_state.adaptive_tensor import AdaptiveTensor


@dataclasses.dataclass(frozen=True)
class FrozenCurvature:
    """One direction x = W^½ u of a measurement with its S; ``squares`` holds x² by the identity of each parameter."""

    ratio: float
    squares: Mapping[int, Tensor]

    @classmethod
    def of(cls, ratio: float, direction: Tensor, params: Sequence[Tensor]) -> FrozenCurvature:
        """Take the direction in the coordinates of the parameters, (n,), in the order of ``params``."""
        pieces = torch.split(direction.square(), [param.numel() for param in params])
        return cls(ratio, {id(p): piece.reshape(p.shape) for p, piece in zip(params, pieces, strict=True)})

    def ratio_now(self, tensors: Sequence[AdaptiveTensor]) -> float | None:
        """Return what S would be if only the step had changed: the learning rate, v̂, the clip factor.

        xᵀHx / xᵀW'⁻¹x  with xᵀHx = S of then, up to the tolerance of that estimate: the Rayleigh quotient of W'^½HW'^½
        at W'^-½ x, so at most its S

        Args:
            tensors: the optimizer's view now.

        Returns:
            The ratio; None where a parameter of the measurement is gone or does not move any more.

        Cost: four elementwise passes and one transfer.
        """
        by_param = {id(tensor.param): tensor for tensor in tensors}
        if any(key not in by_param for key in self.squares):
            return None
        lengths = [squared_length(by_param[key], square) for key, square in self.squares.items()]
        total = float(torch.stack([length.to(lengths[0]) for length in lengths]).sum()) if lengths else 0.0
        return self.ratio / total if 0 < total < math.inf else None


def fastest_growth(tensors: Sequence[AdaptiveTensor]) -> float:
    """Return the largest d log S / dt that v̂ alone gives, without new gradients: -½ log(v̂_{t+1} / v̂_t).

    v̂_{t+1} / v̂_t = b2 (1-b2^t) / (1-b2^{t+1})  with bias correction, b2 without; 0 for a sum that never decays
    """
    rates = [0.0]
    for tensor in tensors:
        beta2 = tensor.beta2
        if 0 < beta2 < 1:
            is_corrected = tensor.correction < 1
            now, then = (1 - beta2**t if is_corrected else 1.0 for t in (tensor.n_steps, tensor.n_steps + 1))
            rates.append(-0.5 * math.log(beta2 * now / then))
    return max(rates)
