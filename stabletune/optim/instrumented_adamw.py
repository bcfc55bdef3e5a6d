"""torch's AdamW with the mitigations stabletune searches over, each off by default.

In: what ``torch.optim.AdamW`` takes, plus three limits. Out: the same steps as torch's, bit for bit, while all limits
are off; ``clip_factor`` tells the signals how much the last step was shrunk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from stabletune.hyperparameters import IMPLEMENTED_MITIGATIONS
from stabletune.optim.clipped_adamw import clipped_adamw_step


class InstrumentedAdamW(torch.optim.AdamW):
    """AdamW with optional gradient, update and second-moment clipping.

    With all three off it takes the steps of ``torch.optim.AdamW`` bit for bit, through the same code. ``state_dict``
    is torch's plus the three limits in each group; those of ``torch.optim.Adam`` and ``AdamW`` load too.

    Args:
        params: as torch.
        lr: learning rate, at least 0.
        betas: decay rates of the moments, each in [0, 1).
        eps: added to √v̂, at least 0.
        weight_decay: decoupled decay, at least 0.
        amsgrad: use the running maximum of v.
        max_grad_norm: global norm over all groups, exactly ``clip_grad_norm_`` before the step (``p.grad`` is changed).
        update_clip: d of StableAdamW (arXiv:2304.13013): lr / max(1, rms/d) per tensor; d = 1 there.
        second_moment_clip: θ of SPAM (arXiv:2501.06842): g² at most θ v̂ of the step before; θ = 5,000 there.
        maximize: as torch.
        foreach: as torch; update_clip and second_moment_clip always use lists of tensors.
        capturable: as torch; not with update_clip or second_moment_clip.
        differentiable: as torch; not with update_clip or second_moment_clip.
        fused: as torch; not with update_clip or second_moment_clip.

    Raises:
        ValueError: a value outside the rules above.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        max_grad_norm: float | None = None,
        update_clip: float | None = None,
        second_moment_clip: float | None = None,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        self._limits = {
            "max_grad_norm": max_grad_norm,
            "update_clip": update_clip,
            "second_moment_clip": second_moment_clip,
        }
        self._grad_norm: Tensor | None = None
        self._update_factors: dict[Tensor, Tensor] = {}
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            maximize=maximize,
            foreach=foreach,
            capturable=capturable,
            differentiable=differentiable,
            fused=fused,
        )
        self.defaults.update(self._limits)
        if max_grad_norm is not None and fused:
            # a GradScaler must unscale before the norm is taken, not inside the fused kernel
            self._step_supports_amp_scaling = False

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; it may set its own ``update_clip`` and ``second_moment_clip``."""
        for name in IMPLEMENTED_MITIGATIONS:
            param_group.setdefault(name, self._limits[name])
        _check_limits(param_group, self.defaults)
        if param_group["max_grad_norm"] != self._limits["max_grad_norm"]:
            raise ValueError(
                "InstrumentedAdamW: max_grad_norm bounds the norm over all groups together, but got "
                f"{param_group['max_grad_norm']!r} for one group. Give it once, as an argument."
            )
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; ``closure``, if given, recomputes the loss and its gradients first."""
        self._forget_last_step()
        groups = self.param_groups
        if all(group[name] is None for group in groups for name in IMPLEMENTED_MITIGATIONS):
            return _torch_step(self, closure)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        limit = groups[0]["max_grad_norm"]
        if limit is not None:
            self._grad_norm = torch.nn.utils.clip_grad_norm_([p for g in groups for p in g["params"]], limit)
        if all(group["update_clip"] is None and group["second_moment_clip"] is None for group in groups):
            _torch_step(self, None)
            return loss
        for group in groups:
            self._update_factors.update(clipped_adamw_step(group, self.state))
        return loss

    @property
    def grad_norm(self) -> float | None:
        """The global gradient norm of the last step before clipping; None without ``max_grad_norm``."""
        return None if self._grad_norm is None else float(self._grad_norm)

    def clip_factor(self, param: Tensor) -> float:
        """The factor in (0, 1] by which clipping shrank the last step of ``param``; 1 where nothing bit.

        The product of min(1, max_grad_norm / (‖g‖ + 1e-6)), torch's own coefficient, and of ``update_clip``'s
        1 / max(1, rms/d). ``second_moment_clip`` acts on single entries and is not in it.
        """
        factor = 1.0
        if self._grad_norm is not None:
            factor = min(1.0, float(self.param_groups[0]["max_grad_norm"]) / (float(self._grad_norm) + 1e-6))
        return factor * self.lr_factor(param)

    def lr_factor(self, param: Tensor) -> float:
        """The factor in (0, 1] by which ``update_clip`` shrank the lr of the last step of ``param``, its decay too."""
        return float(self._update_factors[param]) if param in self._update_factors else 1.0

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a ``state_dict`` of this class, ``torch.optim.AdamW`` or ``Adam``; limits it lacks stay as they are."""
        limits = [{name: group[name] for name in IMPLEMENTED_MITIGATIONS} for group in self.param_groups]
        super().load_state_dict(state_dict)
        for group, kept in zip(self.param_groups, limits, strict=True):
            for name, value in kept.items():
                group.setdefault(name, value)
        self._forget_last_step()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore from a pickle or a copy, where the last step is forgotten."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._limits = {name: self.defaults[name] for name in IMPLEMENTED_MITIGATIONS}
        self._forget_last_step()

    def _forget_last_step(self) -> None:
        self._grad_norm = None
        self._update_factors = {}


def _torch_step(optimizer: torch.optim.AdamW, closure: Callable[[], Any] | None) -> Any:
    """AdamW.step without the wrapper that torch hangs round it: the hooks already ran for the subclass."""
    step: Any = torch.optim.AdamW.step
    while getattr(step, "hooked", False):
        step = step.__wrapped__
    return step(optimizer, closure)


def _check_limits(group: dict[str, Any], defaults: dict[str, Any]) -> None:
    for name in IMPLEMENTED_MITIGATIONS:
        value = group[name]
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
            raise ValueError(
                f"InstrumentedAdamW: {name} must be a finite number above 0, or None, but got {value!r}. "
                "Use None to switch it off."
            )
    if group["update_clip"] is None and group["second_moment_clip"] is None:
        return
    for flag in ("capturable", "differentiable", "fused"):
        if group.get(flag, defaults.get(flag)):
            raise ValueError(
                f"InstrumentedAdamW: update_clip and second_moment_clip exclude {flag}, but got {flag}=True. "
                "Leave the flag out."
            )
