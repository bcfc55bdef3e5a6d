"""What every integration does at an optimizer step: read, alert, guard."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from stabletune.judgement.guard_policy import GuardBounds, GuardPolicy
from stabletune.monitor.alerts.stability_alerts import Sink, StabilityAlerts, check_sinks
from stabletune.monitor.schedule import make_schedule
from stabletune.monitor.stability_guard import MODES, Mode, StabilityGuard
from stabletune.monitor.stability_monitor import StabilityMonitor
from stabletune.records import Measurement

_log = logging.getLogger("stabletune")


class Watch:
    """A monitor with its alerts and its guard, and every reading of the training under way, or of the last.

    Args:
        every: see ``StabilityMonitor``.
        overhead: see ``StabilityMonitor``.
        steps: see ``StabilityMonitor``.
        loss_floor: the loss's lower bound; a loss at or below it ends alerts and guard.
        sinks: told of alerts; none, and there are no alerts.
        guard: the mode of a guard; None, and there is none.
        bounds: of the guard.
        guard_log: a file for its decisions; ``guard.jsonl`` in the folder of a ``FolderSink`` is on the dashboard.
    """

    def __init__(
        self,
        *,
        every: int | None = None,
        overhead: float = 0.05,
        steps: int | None = None,
        loss_floor: float = 0.0,
        sinks: Sequence[Sink] = (),
        guard: Mode | None = None,
        bounds: GuardBounds | None = None,
        guard_log: str | Path | None = None,
    ) -> None:
        if guard is not None and guard not in MODES:
            raise ValueError(f"guard: must be None or one of {', '.join(MODES)}, but got {guard!r}. Name one of them.")
        make_schedule(every, overhead, steps)
        check_sinks(sinks)
        GuardPolicy(bounds, loss_floor=loss_floor)
        self._every, self._overhead, self._steps = every, overhead, steps
        self._sinks, self._loss_floor = tuple(sinks), loss_floor
        self._mode, self._bounds, self._guard_log = guard, bounds, guard_log
        self.readings: list[Measurement] = []
        self.monitor: StabilityMonitor | None = None
        self.alerts: StabilityAlerts | None = None
        self.guard: StabilityGuard | None = None
        self._has_failed = False

    def begin(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, *, start_step: int = 0) -> None:
        """Attach to an optimizer, before its first step; what is left of a training that was cut off ends first.

        ``start_step`` is how many steps a training that goes on from a checkpoint has behind it.
        """
        if self.guard is not None:
            self.guard.remove()
        self.readings, self._has_failed = [], False
        self.monitor = StabilityMonitor(
            model, optimizer, every=self._every, overhead=self._overhead, steps=self._steps, start_step=start_step
        )
        floor = self._loss_floor
        self.alerts = StabilityAlerts(self.monitor, self._sinks, loss_floor=floor) if self._sinks else None
        self.guard = None
        if self._mode is not None:
            self.guard = StabilityGuard(
                self.monitor, self._mode, bounds=self._bounds, log=self._guard_log, loss_floor=floor
            )

    def refuse_to_act_alone(self) -> None:
        """Raise ``ValueError`` if a guard is to act: changes in one of several processes would drive them apart."""
        if self._mode == "act":
            raise ValueError(
                "guard: must be None, 'observe' or 'suggest' with several processes, but got 'act'. "
                "A guard acts in one process only; the others would keep their own lr."
            )

    def guard_state(self) -> dict[str, Any] | None:
        """The state of the guard, to be saved with a checkpoint; None where there is none, or it has ended."""
        if self.guard is None or not self.guard.is_guarding or self._has_failed:
            return None
        return self.guard.state_dict()

    def restore_guard(self, state: Mapping[str, Any] | None) -> None:
        """Go on from what a checkpoint has of a guard; what is no such state is logged, and the guard begins anew."""
        if self.guard is None or state is None:
            return
        try:
            self.guard.load_state_dict(state)
        except ValueError as error:
            _log.warning("stabletune: the guard begins anew: %s", error)

    def step(self, losses: Sequence[torch.Tensor], closure: Callable[[], torch.Tensor]) -> None:
        """Take an optimizer step; ``losses`` of its micro-batches, whose sum is the step's loss.

        What fails ends the watching, is logged, and does not reach the training.
        """
        if self._has_failed:
            return
        try:
            self._take(losses, closure)
        except Exception:
            self._has_failed = True
            self.end()
            _log.exception("stabletune: this training is no longer watched; it goes on")

    def _take(self, losses: Sequence[torch.Tensor], closure: Callable[[], torch.Tensor]) -> None:
        assert self.monitor is not None
        loss = torch.stack([loss.detach().float() for loss in losses]).sum()
        reading = self._read(loss, closure)
        if self.alerts is not None:
            self.alerts.step(loss, reading, closure)
        if self.guard is not None:
            self.guard.step(loss, reading)
        if reading is not None:
            self.readings.append(reading)

    def _read(self, loss: torch.Tensor, closure: Callable[[], torch.Tensor]) -> Measurement | None:
        """Read if due; a first reading that fails ends the readings of S, and not the training."""
        assert self.monitor is not None
        try:
            return self.monitor.step(loss, closure)
        except Exception as error:
            _log.warning("stabletune: S is not read in this training: %s: %s", type(error).__name__, error)
            self.monitor.forgo_curvature()
            return None

    def end(self) -> None:
        """Let the sinks finish and leave the optimizer alone."""
        if self.alerts is not None:
            self.alerts.close()
        if self.guard is not None:
            self.guard.remove()
