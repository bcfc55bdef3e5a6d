"""torch's AdamW with the mitigations stabletune searches over, each off by default.

In: what ``torch.optim.AdamW`` takes, plus five mitigations. Out: the same steps as torch's, bit for bit, while all are
off; ``clip_factor`` tells the signals how much the last step was shrunk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from stabletune.hyperparameters import HYPERPARAMETERS, MITIGATIONS
from stabletune.optim.clipped_adamw import BY_TENSOR, clipped_adamw_step


class InstrumentedAdamW(torch.optim.AdamW):
    """AdamW with optional clipping and other ways to keep the second moment with its gradients.

    With all off it takes the steps of ``torch.optim.AdamW`` bit for bit, through the same code. ``state_dict`` is
    torch's plus the mitigations in each group, and ``second_moment_reset``'s memory in the state; those of
    ``torch.optim.Adam`` and ``AdamW`` load too, and torch's load this one, with the same v̂.

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
        second_moment_reset: τ > 1: a v̂ that exceeds its gradients' squares τ times for some steps forgets them.
        beta2_exponent: 0 < c < 1 of Adafactor (arXiv:1804.04235): min(beta2, 1 - t^-c) for beta2; c = 0.8 there.
        maximize: as torch.
        foreach: as torch; every mitigation but max_grad_norm always uses lists of tensors.
        capturable: as torch, and so are differentiable and fused; of the mitigations, beside max_grad_norm only.
        differentiable: see capturable.
        fused: see capturable.

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
        second_moment_reset: float | None = None,
        beta2_exponent: float | None = None,
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
            "second_moment_reset": second_moment_reset,
            "beta2_exponent": beta2_exponent,
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
        """Add a group; it may set every mitigation but ``max_grad_norm`` for itself."""
        for name in MITIGATIONS:
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
        if all(group[name] is None for group in groups for name in MITIGATIONS):
            return _torch_step(self, closure)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        limit = groups[0]["max_grad_norm"]
        if limit is not None:
            self._grad_norm = torch.nn.utils.clip_grad_norm_([p for g in groups for p in g["params"]], limit)
        if all(group[name] is None for group in groups for name in BY_TENSOR):
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
        limits = [{name: group[name] for name in MITIGATIONS} for group in self.param_groups]
        super().load_state_dict(state_dict)
        for group, kept in zip(self.param_groups, limits, strict=True):
            for name, value in kept.items():
                group.setdefault(name, value)
        self._forget_last_step()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore from a pickle or a copy, where the last step is forgotten."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._limits = {name: self.defaults.setdefault(name) for name in MITIGATIONS}
        for group in self.param_groups:
            for name, value in self._limits.items():
                group.setdefault(name, value)
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
    for name in MITIGATIONS:
        known = HYPERPARAMETERS[name]
        if not known.accepts(group[name]):
            below = "finite" if known.high == float("inf") else f"below {known.high:g}"
            raise ValueError(
                f"InstrumentedAdamW: {name} must be a number above {known.low:g} and {below}, or None, "
                f"but got {group[name]!r}. Use None to switch it off."
            )
    in_force = [name for name in BY_TENSOR if group[name] is not None]
    for flag in ("capturable", "differentiable", "fused") if in_force else ():
        if group.get(flag, defaults.get(flag)):
            raise ValueError(
                f"InstrumentedAdamW: {', '.join(BY_TENSOR)} exclude {flag}, "
                f"but got {flag}=True beside {in_force[0]}={group[in_force[0]]!r}. Leave the flag out."
            )
