"""A typed view of an Adam-like optimizer: what each parameter tensor's next step is made of.

In: the optimizer. Out: one ``AdamTensor`` per trainable parameter that has taken a step; nothing is copied or changed.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import torch
from torch import Tensor

from stabletune.errors import MeasurementError

SUPPORTED = "torch.optim.Adam, torch.optim.AdamW and stabletune.InstrumentedAdamW"


@dataclasses.dataclass(frozen=True)
class AdamTensor:
    """One parameter tensor with its state and the hyperparameters in force.

    ``second_moment`` is v, the raw moving average; ``denominator_moment`` the one under the root, its running maximum
    with amsgrad; ``l2`` the coupled decay that enters the gradient (0 when decay is decoupled).
    """

    param: Tensor
    second_moment: Tensor
    denominator_moment: Tensor
    n_steps: int
    lr: float
    beta1: float
    beta2: float
    eps: float
    l2: float
    clip_factor: float

    @functools.cached_property
    def v_hat(self) -> Tensor:
        """The bias-corrected second moment that divides the step, v / (1 - b2^t), in float32 at least."""
        moment = self.denominator_moment
        return moment.to(torch.promote_types(moment.dtype, torch.float32)) / (1 - self.beta2**self.n_steps)

    @functools.cached_property
    def v_hat_root(self) -> Tensor:
        """√v̂."""
        return self.v_hat.sqrt()


def check_optimizer(optimizer: torch.optim.Optimizer) -> None:
    """Raise MeasurementError unless the optimizer's update is one the signals know."""
    if not isinstance(optimizer, (torch.optim.Adam, torch.optim.AdamW)):
        raise MeasurementError(
            f"StabilityMonitor: the optimizer must be one of {SUPPORTED}, but got {type(optimizer).__name__}. "
            "Use one of these, or train without the monitor."
        )
    if len({bool(group.get("maximize")) for group in optimizer.param_groups}) > 1:
        raise MeasurementError(
            "StabilityMonitor: all parameter groups must agree on maximize, but got both. "
            "A saddle-point problem has no stability edge of this kind."
        )


def is_maximizing(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the optimizer climbs, so that its loss is the negative of the one given."""
    return bool(optimizer.param_groups[0].get("maximize"))


def read_adam(optimizer: torch.optim.Optimizer) -> list[AdamTensor]:
    """Read every trainable parameter that has taken at least one step; t is counted per parameter."""
    found = [
        (param, group)
        for group in optimizer.param_groups
        for param in group["params"]
        if param.requires_grad and "exp_avg_sq" in optimizer.state.get(param, {})
    ]
    steps = _step_counts([optimizer.state[param]["step"] for param, _ in found])
    return [
        _read_tensor(optimizer, param, group, n_steps)
        for (param, group), n_steps in zip(found, steps, strict=True)
        if n_steps > 0
    ]


def _read_tensor(optimizer: torch.optim.Optimizer, param: Tensor, group: dict[str, Any], n_steps: int) -> AdamTensor:
    if param.is_complex():
        raise MeasurementError(
            f"StabilityMonitor: parameters must be real, but got {param.dtype}. Hold real and imaginary parts apart."
        )
    state = optimizer.state[param]
    is_decoupled = group.get("decoupled_weight_decay", isinstance(optimizer, torch.optim.AdamW))
    clip_factor = getattr(optimizer, "clip_factor", None)
    beta1, beta2 = group["betas"]
    return AdamTensor(
        param=param,
        second_moment=state["exp_avg_sq"],
        denominator_moment=state["max_exp_avg_sq"] if group["amsgrad"] else state["exp_avg_sq"],
        n_steps=n_steps,
        lr=float(group["lr"]),
        beta1=float(beta1),
        beta2=float(beta2),
        eps=float(group["eps"]),
        l2=0.0 if is_decoupled else float(group["weight_decay"]),
        clip_factor=1.0 if clip_factor is None else clip_factor(param),
    )


def _step_counts(steps: list[Tensor | float]) -> list[int]:
    """Read all counters with one transfer per device rather than one each."""
    on_device = [step for step in steps if isinstance(step, Tensor) and step.device.type != "cpu"]
    if not on_device:
        return [int(step) for step in steps]
    values = torch.stack([torch.as_tensor(step).to(on_device[0].device).float() for step in steps])
    return [int(value) for value in values.tolist()]
