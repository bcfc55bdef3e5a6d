"""Second moments for values of beta2 that are not in use, kept beside a run as if each had been.

In: the optimizer's steps, watched through its hooks. Out: for each of these beta2', the view of every parameter that
the signals take, with v̂' in place of v̂. The optimizer, its ``state_dict`` and the training stay as they are.
"""

from __future__ import annotations

import contextlib
import dataclasses
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from stabletune.errors import MeasurementError
from stabletune.hyperparameters import EXCLUDES_SHADOWS, MOST_SHADOWS
from stabletune.optim.clipped_adamw import update_clip_factors
from stabletune.optim.instrumented_adamw import InstrumentedAdamW
from stabletune.signals.optimizer_state.adaptive_tensor import AdaptiveTensor
from stabletune.signals.optimizer_state.reading import decay_is_decoupled


@dataclasses.dataclass
class _Shadow:
    """What is kept for one parameter: v' per beta2', its running maximum with amsgrad, |g| with ``update_clip``."""

    moments: list[Tensor]
    maxima: list[Tensor]
    last_size: Tensor | None = None
    update_clip: float | None = None


class ShadowSecondMoments:
    """Follows v' for other values of beta2 along the run's own trajectory.

    v'_t = b2' v'_{t-1} + (1-b2') g_t²,   v̂'_t = v'_t / (1 - b2'^t)

    g_t is the gradient that entered the optimizer's moments: after clipping, with the coupled decay. v' starts from the
    optimizer's own v before the first step after attaching or after ``load_state_dict``: zero for a fresh optimizer,
    otherwise as if beta2 had been changed there. t is the optimizer's own count. A parameter without a gradient, and a
    step that a GradScaler skipped, change nothing.

    A counterfactual: parameters, gradients and t are those of the run, which another beta2 would change in time.

    Args:
        optimizer: torch's Adam or AdamW, or InstrumentedAdamW without the mitigations in ``EXCLUDES_SHADOWS``.
        beta2: at most 8 different values, each 0 < beta2' < 1.
        meter: entered round every update, so that its work can be counted.

    Raises:
        MeasurementError: the optimizer is none of these.
        ValueError: ``beta2`` breaks its rule.

    Cost: two elementwise passes per value and step; one float per parameter and value (two with amsgrad).
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        beta2: Sequence[float],
        meter: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
    ) -> None:
        _check_values(beta2)
        _check_optimizer(optimizer)
        self.beta2 = tuple(float(value) for value in beta2)
        self._optimizer = optimizer
        self._meter = meter
        self._shadows: dict[Tensor, _Shadow] = {}
        self._decays: dict[Tensor, Tensor] = {}
        handles = [
            optimizer.register_step_pre_hook(_held_weakly(self._before_step)),
            optimizer.register_step_post_hook(_held_weakly(self._after_step)),
            optimizer.register_load_state_dict_post_hook(_held_weakly(self._start_anew)),
        ]
        weakref.finalize(self, _remove, handles).atexit = False

    def view(self, beta2: float, tensors: Sequence[AdaptiveTensor]) -> list[AdaptiveTensor]:
        """Return each tensor as it would be with this beta2', its clip factor included.

        Raises:
            MeasurementError: a mitigation that excludes shadows has been switched on.
        """
        _check_optimizer(self._optimizer)
        index = self.beta2.index(beta2)
        return [self._tensor_with(index, tensor) for tensor in tensors]

    def _tensor_with(self, index: int, tensor: AdaptiveTensor) -> AdaptiveTensor:
        beta2 = self.beta2[index]
        found = dataclasses.replace(tensor, beta2=beta2, entry_share=1 - beta2, correction=1 - beta2**tensor.n_steps)
        shadow = self._shadows.get(tensor.param)
        if shadow is None:
            return found
        moment = shadow.moments[index]
        denominator = shadow.maxima[index] if shadow.maxima else moment
        found = dataclasses.replace(found, second_moment=moment, denominator_moment=denominator)
        if shadow.last_size is None or shadow.update_clip is None or not isinstance(self._optimizer, InstrumentedAdamW):
            return found
        (own,) = update_clip_factors([shadow.last_size], [found.v_hat_root], limit=shadow.update_clip, eps=tensor.eps)
        # this limit shrinks the learning rate, and the decoupled decay with it
        change = float(own) / self._optimizer.lr_factor(tensor.param)
        return dataclasses.replace(found, clip_factor=tensor.clip_factor * change, shrinkage=tensor.shrinkage * change)

    @torch.no_grad()
    def _before_step(self) -> None:
        for group in self._optimizer.param_groups:
            decay = _coupled_decay(self._optimizer, group)
            for param in group["params"]:
                state = self._optimizer.state.get(param)
                if param not in self._shadows and state and "exp_avg_sq" in state:
                    self._shadows[param] = self._begin(state["exp_avg_sq"], state.get("max_exp_avg_sq"))
                if decay:
                    self._decays[param] = decay * param

    @torch.no_grad()
    def _after_step(self) -> None:
        for shadow in self._shadows.values():
            shadow.last_size = None
        with self._meter():
            for group in [] if _was_skipped(self._optimizer) else self._optimizer.param_groups:
                params = [param for param in group["params"] if param.grad is not None]
                if params:
                    self._advance(params, self._gradients(params, group), group)
        self._decays.clear()

    def _start_anew(self) -> None:
        self._shadows.clear()

    def _advance(self, params: Sequence[Tensor], gradients: list[Tensor], group: dict[str, Any]) -> None:
        shadows = []
        for param in params:
            if param not in self._shadows:
                zeros = torch.zeros_like(param, memory_format=torch.preserve_format)
                self._shadows[param] = self._begin(zeros, zeros if group["amsgrad"] else None)
            shadows.append(self._shadows[param])
        for index, beta2 in enumerate(self.beta2):
            moments = [shadow.moments[index] for shadow in shadows]
            torch._foreach_mul_(moments, beta2)
            torch._foreach_addcmul_(moments, gradients, gradients, 1 - beta2)
            if group["amsgrad"]:
                torch._foreach_maximum_([shadow.maxima[index] for shadow in shadows], moments)
        if group.get("update_clip") is not None:
            for shadow, gradient in zip(shadows, gradients, strict=True):
                shadow.last_size, shadow.update_clip = gradient.abs(), float(group["update_clip"])

    def _gradients(self, params: Sequence[Tensor], group: dict[str, Any]) -> list[Tensor]:
        """What entered the moments, up to its sign."""
        sign = -1.0 if group["maximize"] else 1.0
        raw = [param.grad for param in params if param.grad is not None]
        if not self._decays:
            return raw
        return [
            torch.add(self._decays[param], gradient, alpha=sign) if param in self._decays else gradient
            for param, gradient in zip(params, raw, strict=True)
        ]

    def _begin(self, moment: Tensor, maximum: Tensor | None) -> _Shadow:
        maxima = [] if maximum is None else [maximum.clone() for _ in self.beta2]
        return _Shadow([moment.clone() for _ in self.beta2], maxima)


def _held_weakly(method: Callable[[], None]) -> Callable[..., None]:
    """A hook that does not keep the object of ``method`` alive."""
    reference = weakref.WeakMethod(method)

    def hook(*_: Any) -> None:
        found = reference()
        if found is not None:
            found()

    return hook


def _remove(handles: Sequence[RemovableHandle]) -> None:
    for handle in handles:
        handle.remove()


def _was_skipped(optimizer: torch.optim.Optimizer) -> bool:
    """Whether a GradScaler let a fused kernel run without a step; other optimizers it does not call at all."""
    found_inf = getattr(optimizer, "found_inf", None)
    return found_inf is not None and float(found_inf) > 0


def _coupled_decay(optimizer: torch.optim.Optimizer, group: dict[str, Any]) -> float:
    return 0.0 if decay_is_decoupled(optimizer, group) else float(group["weight_decay"])


def _check_values(beta2: Sequence[float]) -> None:
    is_real = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in beta2)
    if (
        not is_real
        or not 1 <= len(beta2) <= MOST_SHADOWS
        or len({float(value) for value in beta2}) < len(beta2)
        or not all(0 < value < 1 for value in beta2)
    ):
        raise ValueError(
            f"StabilityMonitor: shadow_beta2 must be 1 to {MOST_SHADOWS} different numbers, each 0 < beta2 < 1, "
            f"but got {beta2!r}. Leave it out for none."
        )


def _check_optimizer(optimizer: torch.optim.Optimizer) -> None:
    if not isinstance(optimizer, (torch.optim.Adam, torch.optim.AdamW)):
        raise MeasurementError(
            f"StabilityMonitor: with shadow_beta2 the optimizer must be torch.optim.Adam, torch.optim.AdamW or "
            f"stabletune.InstrumentedAdamW, but got {type(optimizer).__name__}. Leave shadow_beta2 out."
        )
    for group in optimizer.param_groups:
        for name, reason in EXCLUDES_SHADOWS.items():
            if group.get(name) is not None:
                raise MeasurementError(
                    f"StabilityMonitor: with shadow_beta2 {name} must be None, since it {reason}, "
                    f"but got {group[name]}. Leave out one of the two."
                )
