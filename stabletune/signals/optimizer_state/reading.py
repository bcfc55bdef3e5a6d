"""From an optimizer to what the signals see of it: the one place that knows which optimizers can be read.

In: the optimizer. Out: one ``AdaptiveTensor`` per trainable parameter that has taken a step; nothing is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from stabletune.errors import MeasurementError
from stabletune.optim import InstrumentedAdamW
from stabletune.signals.optimizer_state.adagrad import read_adagrad
from stabletune.signals.optimizer_state.adam import read_adam
from stabletune.signals.optimizer_state.adaptive_tensor import AdaptiveTensor, ParameterState
from stabletune.signals.optimizer_state.nadam import read_nadam
from stabletune.signals.optimizer_state.radam import read_radam
from stabletune.signals.optimizer_state.rmsprop import read_rmsprop

RULES: dict[type[torch.optim.Optimizer], Callable[[ParameterState], AdaptiveTensor]] = {
    torch.optim.Adam: read_adam,
    torch.optim.AdamW: read_adam,
    torch.optim.NAdam: read_nadam,
    torch.optim.RAdam: read_radam,
    torch.optim.RMSprop: read_rmsprop,
    torch.optim.Adagrad: read_adagrad,
}
SUPPORTED = f"{', '.join(f'torch.optim.{kind.__name__}' for kind in RULES)} and stabletune.{InstrumentedAdamW.__name__}"
_COUNTERS = ("step", "mu_product")


def check_optimizer(optimizer: torch.optim.Optimizer) -> None:
    """Raise MeasurementError unless the optimizer's update is one the signals know."""
    _rule_of(optimizer)
    if len({bool(group.get("maximize")) for group in optimizer.param_groups}) > 1:
        raise MeasurementError(
            "StabilityMonitor: all parameter groups must agree on maximize, but got both. "
            "A saddle-point problem has no stability edge of this kind."
        )


def check_parameters(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Raise MeasurementError unless the optimizer trains real parameters, of the model too if that has any."""
    if not isinstance(model, torch.nn.Module):
        raise MeasurementError(
            f"StabilityMonitor: model must be a torch.nn.Module, but got {type(model).__name__}. "
            "Give the module that is trained."
        )
    unreal = next((p.dtype for group in optimizer.param_groups for p in group["params"] if p.is_complex()), None)
    if unreal is not None:
        raise MeasurementError(
            f"StabilityMonitor: parameters must be real, but got {unreal}. Hold real and imaginary parts apart."
        )
    held = {id(p) for p in model.parameters()}
    if held and not any(id(p) in held for group in optimizer.param_groups for p in group["params"]):
        raise MeasurementError(
            "StabilityMonitor: the optimizer must hold parameters of the model, but shares none with "
            f"{type(model).__name__}. Give the model that this optimizer trains."
        )


def is_maximizing(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the optimizer climbs, so that its loss is the negative of the one given."""
    return bool(optimizer.param_groups[0].get("maximize"))


def read_tensors(optimizer: torch.optim.Optimizer, clip_factor: float = 1.0) -> list[AdaptiveTensor]:
    """Read every trainable parameter that has taken at least one step; t is counted per parameter.

    ``clip_factor`` is what the loop itself scaled the gradients of the last step by, in place.
    """
    read = _rule_of(optimizer)
    found = [
        (param, group)
        for group in optimizer.param_groups
        for param in group["params"]
        if param.requires_grad and "step" in optimizer.state.get(param, {})
    ]
    counters = _counters([optimizer.state[param] for param, _ in found])
    return [
        read(_parameter_state(optimizer, param, group, counted, clip_factor))
        for (param, group), counted in zip(found, counters, strict=True)
        if counted["step"] > 0
    ]


def decay_is_decoupled(optimizer: torch.optim.Optimizer, group: Mapping[str, Any]) -> bool:
    """Whether weight decay acts on the parameters directly rather than through the gradient."""
    return bool(group.get("decoupled_weight_decay", isinstance(optimizer, torch.optim.AdamW)))


def step_counts(states: Sequence[Mapping[str, Any]]) -> list[float]:
    """Read t of each parameter's state, with one transfer per device."""
    return _fetch([state["step"] for state in states])


def _rule_of(optimizer: torch.optim.Optimizer) -> Callable[[ParameterState], AdaptiveTensor]:
    for kind, read in RULES.items():
        if isinstance(optimizer, kind):
            return read
    raise MeasurementError(
        f"StabilityMonitor: the optimizer must be one of {SUPPORTED}, but got {type(optimizer).__name__}. "
        "Use one of these, or train without the monitor."
    )


def _parameter_state(
    optimizer: torch.optim.Optimizer,
    param: Tensor,
    group: dict[str, Any],
    counters: dict[str, float],
    clip_factor: float,
) -> ParameterState:
    if param.is_complex():
        raise MeasurementError(
            f"StabilityMonitor: parameters must be real, but got {param.dtype}. Hold real and imaginary parts apart."
        )
    is_decoupled = decay_is_decoupled(optimizer, group)
    clips = optimizer if isinstance(optimizer, InstrumentedAdamW) else None
    return ParameterState(
        param=param,
        group=group,
        state=optimizer.state[param],
        counters=counters,
        l2=0.0 if is_decoupled else float(group["weight_decay"]),
        shrinkage=_shrinkage(group, clips.lr_factor(param) if clips else 1.0) if is_decoupled else 0.0,
        clip_factor=clip_factor * (clips.clip_factor(param) if clips else 1.0),
    )


def _shrinkage(group: dict[str, Any], lr_factor: float) -> float:
    shrinkage = lr_factor * float(group["lr"]) * float(group["weight_decay"])
    if not shrinkage < 2:
        raise MeasurementError(
            f"StabilityMonitor: lr * weight_decay < 2 must hold where decay is decoupled, but got {shrinkage:g}. "
            "Lower one of them: such a decay diverges by itself."
        )
    return shrinkage


def _counters(states: Sequence[dict[str, Any]]) -> list[dict[str, float]]:
    """Read all counters with one transfer per device rather than one each."""
    keys = [(index, name) for index, state in enumerate(states) for name in _COUNTERS if name in state]
    found: list[dict[str, float]] = [{} for _ in states]
    for (index, name), value in zip(keys, _fetch([states[i][name] for i, name in keys]), strict=True):
        found[index][name] = value
    return found


def _fetch(values: Sequence[Tensor | float]) -> list[float]:
    """Turn them into numbers, with one transfer for all tensors of a device and precision."""
    found = [0.0 if isinstance(value, Tensor) else float(value) for value in values]
    alike: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for index, value in enumerate(values):
        if isinstance(value, Tensor):
            alike.setdefault((value.device, value.dtype), []).append(index)
    for indices in alike.values():
        gathered = torch.stack([value for index in indices if isinstance(value := values[index], Tensor)])
        for index, number in zip(indices, gathered.tolist(), strict=True):
            found[index] = float(number)
    return found
