"""A guard for a production training: watches every step and, if it may, brakes before an oscillation becomes a spike.

In: the optimizer's gradients before each step and the loss after it. Out: lr, beta2 and gradients of that step, within
bounds, and a line for every decision. What decides is ``judgement.guard_policy``, so that a run can be replayed.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from stabletune.errors import LossFloorError
from stabletune.judgement.guard_policy import GuardBounds, GuardDecision, GuardPolicy
from stabletune.monitor.stability_monitor import StabilityMonitor
from stabletune.monitor.step_notes import as_number
from stabletune.records import Measurement, as_data
from stabletune.signals.gradient_norm import coming_gradient_norm
from stabletune.signals.optimizer_state.reading import step_counts

Mode = Literal["observe", "suggest", "act"]
MODES = ("observe", "suggest", "act")
SQUARES = ("exp_avg_sq", "max_exp_avg_sq")
_log = logging.getLogger("stabletune")
_guarded: weakref.WeakSet[torch.optim.Optimizer] = weakref.WeakSet()


@dataclasses.dataclass
class _Held:
    """What a group had before a step, and what it was given for it."""

    group: dict[str, Any]
    lr: Any
    betas: Any
    set_lr: Any = None
    set_betas: Any = None


class StabilityGuard:
    """Keeps a training from spiking with the smallest changes that do, and gives them back when it is calm.

    The rule and its thresholds: ``judgement.guard_policy.GuardPolicy``. lr is scaled, and beta2 capped, for the time of
    a step, so that a scheduler sees its own values; where beta2 changes, ``exp_avg_sq`` is rescaled so that v̂ does not
    leap. ``suggest`` decides what it would do first and changes nothing; ``observe`` says nothing either. beta2 is
    capped for Adam, AdamW, NAdam and InstrumentedAdamW; of others lr alone is scaled (RAdam's rectification would
    lengthen its steps). Gradients and loss are read at every step, which on a GPU waits for it; with
    ``optimizer.step(closure)`` the gradients are those that the closure makes. What fails inside ends the guarding and
    not the training.

    Args:
        monitor: of the optimizer to guard.
        mode: what it may do.
        bounds: how far it may go.
        log: a file to which each decision is added as a JSON line, its folder made if need be; Python's logging gets
            it anyway.
        loss_floor: the loss's lower bound; a loss at or below it ends the guarding.

    Raises:
        ValueError: an unknown mode, bounds or a floor that are none, or an optimizer that another guard has already.
        OSError: ``log`` cannot be written.
    """

    def __init__(
        self,
        monitor: StabilityMonitor,
        mode: Mode = "observe",
        *,
        bounds: GuardBounds | None = None,
        log: str | Path | None = None,
        loss_floor: float = 0.0,
    ) -> None:
        if mode not in MODES:
            raise ValueError(f"mode: must be one of {', '.join(MODES)}, but got {mode!r}. Name one of them.")
        if not isinstance(monitor, StabilityMonitor):
            raise ValueError(
                f"monitor: must be a StabilityMonitor, but got {type(monitor).__name__}. Give the one of the loop."
            )
        if monitor.optimizer in _guarded:
            raise ValueError(
                "monitor: its optimizer must have no guard yet, but it has one. Call remove() on that first."
            )
        self.mode = mode
        self.decisions: list[GuardDecision] = []
        self._monitor = monitor
        self._optimizer = monitor.optimizer
        self._policy = GuardPolicy(bounds, loss_floor=loss_floor)  # refuses what are none
        if not _can_cap_beta2(self._optimizer, self._policy.bounds.beta2):
            self._policy = GuardPolicy(dataclasses.replace(self._policy.bounds, beta2=None), loss_floor=loss_floor)
        self._policy.begin_after(monitor.n_steps)
        self._log = None if log is None else Path(log)
        if self._log is not None:
            self._log.parent.mkdir(parents=True, exist_ok=True)
            self._log.touch()
        self.is_guarding = True
        self._ratio: float | None = None
        self._ratio_step: int | None = None
        self._held: list[_Held] = []
        self._hooks = [
            self._optimizer.register_step_pre_hook(self._before),
            self._optimizer.register_step_post_hook(lambda optimizer, args, kwargs: self._give_back()),
            self._optimizer.register_state_dict_pre_hook(lambda optimizer: self._give_back()),
        ]
        _guarded.add(self._optimizer)

    @property
    def lr_scale(self) -> float:
        """The factor on lr that is in force, or would be."""
        return self._policy.lr_scale

    def step(self, loss: torch.Tensor | float, reading: Measurement | None = None) -> None:
        """Take the loss of a step, after ``monitor.step``; of the readings that gave, decisions show the newest S.

        Raises:
            ValueError: ``loss`` is neither a number nor a scalar tensor.
        """
        if not self.is_guarding:
            return
        if reading is not None and reading.sharpness_ratio is not None:
            self._ratio, self._ratio_step = reading.sharpness_ratio, reading.step
        try:
            self._policy.after_step(as_number(loss))
        except LossFloorError as error:
            self.is_guarding = False
            _log.warning("stabletune: the guard ends. %s", error)

    def state_dict(self) -> dict[str, Any]:
        """Plain data to save beside the optimizer's."""
        return self._policy.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state_dict``, within these bounds; raises ValueError for anything else."""
        self._policy.load_state_dict(state)

    def remove(self) -> None:
        """Leave the optimizer alone from now on."""
        self._give_back()
        for hook in self._hooks:
            hook.remove()
        _guarded.discard(self._optimizer)

    def _before(
        self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Decide now, or once the closure of this step has made its gradients."""
        self._give_back()  # what a step that raised has left
        if not self.is_guarding:
            return None
        given = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if given is None:
            self._decide_safely()
            return None

        def closure() -> Any:
            loss = given()
            self._decide_safely()
            return loss

        if "closure" in kwargs:
            return args, {**kwargs, "closure": closure}
        return (args[0], closure, *args[2:]), kwargs

    def _decide_safely(self) -> None:
        try:
            self._decide()
        except Exception:
            self.is_guarding = False
            self._give_back()
            _log.exception("stabletune: the guard failed and ends; the training goes on")

    def _decide(self) -> None:
        noted, left = self._monitor.notes.coming_norm, coming_gradient_norm(self._optimizer)
        norm = left if noted is None else noted
        decision = self._policy.before_step(norm, left)
        if decision is not None:
            self._record(decision)
        if self.mode != "act":
            return
        groups = self._optimizer.param_groups
        if decision is not None and decision.gradient_scale != 1.0:
            self._monitor.note_gradient_norm(norm)
            gradients = [p.grad for group in groups for p in group["params"] if p.grad is not None]
            torch._foreach_mul_(gradients, decision.gradient_scale)
        cap = self._policy.beta2_cap
        for group in groups:
            held = _Held(group, group["lr"], group.get("betas"))
            self._held.append(held)
            if self._policy.lr_scale < 1.0:
                group["lr"] = held.set_lr = group["lr"] * self._policy.lr_scale
            if cap is not None and cap < group["betas"][1]:
                self._monitor.notes.note_other_beta2()
                self._set_beta2(group, cap)
                held.set_betas = group["betas"]

    def _give_back(self) -> None:
        """Undo what a step was given, but for what somebody else has set since."""
        for held in self._held:
            group = held.group
            if held.set_lr is not None and group["lr"] is held.set_lr:
                group["lr"] = held.lr
            if held.set_betas is not None and group["betas"] is held.set_betas:
                self._set_beta2(group, held.betas[1])
        self._held = []

    def _set_beta2(self, group: dict[str, Any], beta2: float) -> None:
        """Change beta2 and rescale the second moments, so that v̂ = v / (1 - beta2^t) stays what it is."""
        beta1, before = group["betas"]
        group["betas"] = (beta1, beta2)
        states = [self._optimizer.state[p] for p in group["params"] if "step" in self._optimizer.state.get(p, {})]
        alike: dict[float, list[torch.Tensor]] = {}
        for state, t in zip(states, step_counts(states), strict=True):
            if t > 0.0:
                alike.setdefault(t, []).extend(state[name] for name in SQUARES if name in state)
        for t, squares in alike.items():
            torch._foreach_mul_(squares, _share_filled(beta2, t) / _share_filled(before, t))

    def _record(self, decision: GuardDecision) -> None:
        if self.mode == "observe":
            return
        decision = dataclasses.replace(decision, sharpness_ratio=self._ratio, sharpness_ratio_step=self._ratio_step)
        self.decisions.append(decision)
        _log.warning("stabletune: guard, step %d: %s (%s)", decision.step, decision.reason, self.mode)
        if self._log is None:
            return
        line = json.dumps({**as_data(decision), "mode": self.mode}, allow_nan=False)
        try:
            with self._log.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            self._log = None
            _log.warning("stabletune: decisions are no longer written to a file: %s", error)


def _can_cap_beta2(optimizer: torch.optim.Optimizer, cap: float | None) -> bool:
    """Whether there is a beta2 above the cap that may be lowered."""
    if cap is None or not isinstance(optimizer, (torch.optim.Adam, torch.optim.NAdam)):
        return False
    return any(cap < group["betas"][1] for group in optimizer.param_groups)


def _share_filled(beta2: float, t: float) -> float:
    """1 - beta2^t, the bias that v is corrected by."""
    return -math.expm1(t * math.log(beta2)) if beta2 else 1.0
