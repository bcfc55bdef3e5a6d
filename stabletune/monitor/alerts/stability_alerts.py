"""Alerts in the user's own loop: every step's loss and reading flow in, an alert flows out to the sinks.

Nothing here may stop a training: a sink that fails is logged once and goes on being called, and a loss that cannot be
judged ends the judging, not the run.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import torch

from stabletune.errors import LossFloorError
from stabletune.judgement.alert_levels import AlertLevels
from stabletune.monitor.live_history import LiveHistory
from stabletune.monitor.stability_monitor import StabilityMonitor
from stabletune.monitor.step_notes import as_number, check_closure
from stabletune.records import Alert, Level, Measurement

Sink = Callable[[Alert], None]
_log = logging.getLogger("stabletune")


class StabilityAlerts:
    """Judges a training that a ``StabilityMonitor`` watches, and tells the sinks where its level changes.

    The levels and when they begin and end: ``judgement.alert_levels.AlertLevels``. The step's loss and the gradients
    left in ``p.grad`` are read at every step, which on a GPU waits for it.

    Args:
        monitor: gives the readings.
        sinks: each is called with every ``Alert``; one that has a method ``observe(step, loss, reading)`` is told of
            every step too.
        loss_floor: the loss's lower bound; a loss at or below it ends the judging.

    Raises:
        TypeError: a sink cannot be called, or they are no list.
        ValueError: the floor is no finite number.
    """

    def __init__(self, monitor: StabilityMonitor, sinks: Sequence[Sink] = (), *, loss_floor: float = 0.0) -> None:
        check_sinks(sinks)
        self._sinks = tuple(sinks)
        self._live = LiveHistory(monitor, loss_floor=loss_floor)
        self._levels = AlertLevels()
        self._is_judging = True
        self._failed: set[int] = set()

    @property
    def level(self) -> Level:
        """The level now."""
        return self._levels.level

    def step(
        self,
        loss: torch.Tensor | float,
        reading: Measurement | None,
        closure: Callable[[], torch.Tensor] | None = None,
    ) -> Alert | None:
        """Take a step, after ``monitor.step`` gave ``reading``; the alert if there is one.

        Args:
            loss: of the step.
            reading: what ``monitor.step`` gave.
            closure: computes the step's loss again, mostly the one given to ``monitor.step``. With it S is read out of
                turn where the loss or a gradient stands out, and the batches of the last four steps are kept, so that a
                bad batch and an overflow can be told from the other causes; the monitor's overhead pays for it.

        Raises:
            TypeError: ``closure`` is no function.
            ValueError: ``loss`` is neither a number nor a scalar tensor.
        """
        check_closure(closure)
        if not self._is_judging:
            return None
        value = as_number(loss)
        try:
            reading = self._live.add(value, reading, closure)
        except LossFloorError as error:
            self._is_judging = False
            _log.warning("stabletune: no more alerts. %s", error)
            return None
        alert = self._levels.update(self._live.history)
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
            self._guarded(n, lambda: observe(self._live.history.step, loss, reading))
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


def check_sinks(sinks: Sequence[Sink]) -> None:
    """Raise TypeError unless these are sinks."""
    if callable(sinks):
        raise TypeError(f"sinks: must be a list, but got {sinks!r}. Give [{type(sinks).__name__}(...)], say.")
    for n, sink in enumerate(sinks):
        if not callable(sink) or isinstance(sink, type):
            raise TypeError(
                f"sinks: each must be callable with an Alert, but sink {n} is {sink!r}. "
                "Give a function, or an instance of a sink such as LogSink()."
            )
