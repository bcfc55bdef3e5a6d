"""Alerts in the user's own loop: every step's loss and reading flow in, an alert flows out to the sinks.

Nothing here may stop a training: a sink that fails is logged once and goes on being called, and a loss that cannot be
judged ends the judging, not the run.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from stabletune.errors import LossFloorError
from stabletune.hyperparameters import default_settings
from stabletune.judgement.alert_levels import AlertLevels
from stabletune.judgement.history import History
from stabletune.judgement.rules import is_growing
from stabletune.judgement.spikes import SpikeDetector
from stabletune.monitor.stability_monitor import StabilityMonitor
from stabletune.records import Alert, Level, Measurement, TrialSpec, WorkloadReference
from stabletune.signals.gradient_norm import held_gradient_norm

Sink = Callable[[Alert], None]
_log = logging.getLogger("stabletune")


class StabilityAlerts:
    """Judges a training that a ``StabilityMonitor`` watches, and tells the sinks where its level changes.

    The levels and when they begin and end: ``judgement.alert_levels.AlertLevels``. The step's loss and the gradients
    left in ``p.grad`` are read at every step, which on a GPU waits for it.

    Args:
        monitor: gives the readings.
        optimizer: the one that it watches.
        sinks: each is called with every ``Alert``; one that has a method ``observe(step, loss, reading)`` is told of
            every step too.
        loss_floor: the loss's lower bound; a loss at or below it ends the judging.
    """

    def __init__(
        self,
        monitor: StabilityMonitor,
        optimizer: torch.optim.Optimizer,
        sinks: Sequence[Sink] = (),
        *,
        loss_floor: float = 0.0,
    ) -> None:
        self._monitor, self._optimizer = monitor, optimizer
        self._sinks = tuple(sinks)
        self._params: dict[str, Any] = default_settings()
        self.history = History(_spec(self._params), SpikeDetector(loss_floor))
        self._levels = AlertLevels()
        self._is_judging = True
        self._failed: set[int] = set()

    @property
    def level(self) -> Level:
        """The level now."""
        return self._levels.level

    def step(self, loss: torch.Tensor | float, reading: Measurement | None) -> Alert | None:
        """Take a step, after ``monitor.step`` gave ``reading``; the alert if there is one."""
        if not self._is_judging:
            return None
        value = float(loss.detach()) if isinstance(loss, torch.Tensor) else float(loss)
        self._params.update(_settings(self._optimizer))
        try:
            self.history.add(value, gradient_norm=held_gradient_norm(self._optimizer), lr=self._params["lr"])
        except LossFloorError as error:
            self._is_judging = False
            _log.warning("stabletune: no more alerts. %s", error)
            return None
        if is_growing(self.history.gradient_norms) and (reading is None or reading.oscillation_energy is None):
            glance = self._monitor.glance(value)
            reading = glance if reading is None else reading.completed_by(glance)
        if reading is not None:
            self.history.measurements.append(reading)
        alert = self._levels.update(self.history)
        for n, sink in enumerate(self._sinks):
            self._tell(n, sink, alert, value, reading)
        return alert

    def close(self) -> None:
        """Let every sink that has a ``close`` finish."""
        for n, sink in enumerate(self._sinks):
            self._guarded(n, getattr(sink, "close", lambda: None))

    def _tell(self, n: int, sink: Sink, alert: Alert | None, loss: float, reading: Measurement | None) -> None:
        observe = getattr(sink, "observe", None)
        if observe is not None:
            self._guarded(n, lambda: observe(self.history.step, loss, reading))
        if alert is not None:
            self._guarded(n, lambda: sink(alert))

    def _guarded(self, n: int, action: Callable[[], object]) -> None:
        """Do it; an exception is logged with its trace the first time that this sink has one."""
        try:
            action()
        except Exception:
            if n not in self._failed:
                self._failed.add(n)
                _log.exception("stabletune: sink %d (%r) failed; the training goes on", n, self._sinks[n])


def _settings(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """What the optimizer's first group says of the hyperparameters, as far as it has them; the largest lr of all."""
    group = optimizer.param_groups[0]
    beta1, beta2 = group.get("betas", (0.0, group.get("alpha", math.nan)))
    named = {name: group[name] for name in default_settings() if name in group}
    lr = max(float(group["lr"]) for group in optimizer.param_groups)
    return {**named, "lr": lr, "beta1": float(beta1), "beta2": float(beta2)}


def _spec(params: dict[str, Any]) -> TrialSpec:
    """A run of unknown length that nothing stops; ``params`` are kept up to date from outside."""
    return TrialSpec(
        number=0,
        purpose="search",
        seed=0,
        steps=0,
        full_steps=0,
        params=params,
        workload=WorkloadReference("own loop"),
        workload_args={},
        schedule="constant",
        metric="final_loss",
        source="train",
        target=None,
        overhead=None,
        every=None,
        stops_on_spike=False,
        predicts=True,
    )
