"""RMSprop, centered and with momentum too."""

from __future__ import annotations

import torch
from torch import Tensor

from stabletune.errors import MeasurementError
from stabletune.signals.optimizer_state.adaptive_tensor import AdaptiveTensor, ParameterState


def read_rmsprop(found: ParameterState) -> AdaptiveTensor:
    """Read u ← μ u + g / (√v̂ + ε),  θ ← θ - η u;  v̂ = v, centered v - ḡ², ḡ ← α ḡ + (1-α) g.

    κ = η/(1+μ): an alternating gradient ±g leaves u alternating between ±P⁻¹g / (1+μ).

    With all but θ and u frozen and h an eigenvalue of P⁻¹H, (θ, u) moves by a matrix of trace 1 + μ - ηh and
    determinant μ. Eigenvalues stay within the unit circle while
        1 + tr + det = (1+μ) (2 - κh) > 0   the edge, an eigenvalue at -1
        1 - tr + det = ηh > 0               for all h > 0
        |det| < 1                           for all μ < 1, which is asked for
    so that only the first binds. v is not bias-corrected.

    Raises:
        MeasurementError: momentum is 1 or more, with which every step size diverges.

    Source: Tieleman and Hinton, lecture 6.5, 2012; arXiv:1308.0850 for the centered form.
    """
    momentum, alpha = float(found.group["momentum"]), float(found.group["alpha"])
    if momentum >= 1:
        raise MeasurementError(
            f"StabilityMonitor: RMSprop: momentum < 1 must hold, but got {momentum:g}. "
            "With more the training diverges at every learning rate."
        )
    moment = found.state["square_avg"]
    return AdaptiveTensor(
        param=found.param,
        second_moment=moment,
        denominator_moment=_variance(moment, found.state["grad_avg"]) if found.group["centered"] else moment,
        correction=1.0,
        beta2=alpha,
        entry_share=1 - alpha,
        eps=float(found.group["eps"]),
        n_steps=found.n_steps,
        step_size=found.lr / (1 + momentum),
        l2=found.l2,
        shrinkage=found.shrinkage,
        clip_factor=found.clip_factor,
    )


def _variance(moment: Tensor, mean: Tensor) -> Tensor:
    wide = torch.promote_types(moment.dtype, torch.float32)
    return torch.addcmul(moment.to(wide), mean.to(wide), mean.to(wide), value=-1).clamp_min_(0)  # rounding only
