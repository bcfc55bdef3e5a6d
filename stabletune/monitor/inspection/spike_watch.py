"""When a run is looked at closer: keeps what a diagnosis needs of each step, and reads more where something stands out.

In: every step. Out: gradient norms, learning rates and inspections in the ``History``; of the step's reading, what an
extra glance, an extra reading of S and a look at the logits add. All of it is charged to the monitor's budget.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import TypeVar

from torch import Tensor

from stabletune.judgement.history import History
from stabletune.judgement.rules import is_growing
from stabletune.monitor.inspection.inspector import FORWARD_COST, Inspector
from stabletune.monitor.stability_monitor import StabilityMonitor
from stabletune.records import Inspection, Measurement

NORM_COST = 0.01
LOGIT_SHARE = 0.1
READING_SHARE = 0.4
READING_COST = 6.0
READINGS_IN_ADVANCE = 2
BETWEEN_ALARMS = 50
FRESH = 3
ASSUMED_OVERHEAD = 0.15
MOST_BLIND_LOOKS = 2
BETWEEN_LOGITS = 10

Found = TypeVar("Found")


class SpikeWatch:
    """Follows one run for the sake of its diagnoses; each step passes through its four methods, in this order.

    Args:
        history: of the run; steps and inspections are put there.
        monitor: reads, and pays for what is looked at.
    """

    def __init__(self, history: History, monitor: StabilityMonitor) -> None:
        self._history = history
        self._monitor = monitor
        self._inspector = Inspector(monitor.model, monitor.optimizer, history.spikes.loss_floor)
        self.note: str | None = None
        self._overhead = history.spec.overhead or ASSUMED_OVERHEAD
        self._n_episodes = 0
        self._is_alarm = False
        self._read_at = self._alarmed_at = self._broke_at = -BETWEEN_ALARMS
        self._n_extra = self._looked_at = 0
        self._n_blind_looks = 0
        self._charged = 0.0

    def record(self, loss: float, closure: Callable[[], Tensor] | None) -> None:
        """Add a step to the history with its gradient and the learning rate that is held now; keep its batch.

        ``closure`` computes the step's loss again; without it nothing that needs the batch is looked at.
        """
        optimizer = self._monitor.optimizer
        norm = self._monitor.notes.gradient_norm()
        lr = max((float(group["lr"]) for group in optimizer.param_groups), default=math.nan)
        self._history.add(loss, gradient_norm=norm, lr=lr)
        self._is_alarm = closure is not None and self._inspector.remember(self._history.step, loss, closure, norm)

    def complete(
        self, loss: float, closure: Callable[[], Tensor] | None, reading: Measurement | None
    ) -> Measurement | None:
        """Add to the step's reading, if any, what stands out enough to be read out of turn.

        Raises:
            MeasurementError: as ``StabilityMonitor.step``.
        """
        if closure is not None and self._wants_reading(reading):
            reading = self._monitor.measure(loss, closure).completed_by(reading)
        if (reading is None or reading.oscillation_energy is None) and is_growing(self._history.gradient_norms):
            glance = self._monitor.glance(loss)
            reading = glance if reading is None else reading.completed_by(glance)
        logits = None if closure is None else self._logits(closure)
        if logits is None:
            return reading
        if reading is None:
            reading = Measurement(step=self._history.step, loss=loss, lr=self._history.learning_rates[-1])
        return dataclasses.replace(reading, largest_logits=logits)

    def inspect(self) -> None:
        """Look closer where a spike, or the end of finite losses, begins and the batch is at hand."""
        if not self._is_spike_new:
            return
        self._n_episodes = len(self._history.spikes.episodes)
        if not math.isfinite(self._history.losses[-1]):
            self._broke_at = self._history.step
        if self._inspector.has_batch(self._history.step):
            self._keep(self._closer(lambda: self._inspector.inspect(self._history.step)))

    def conclude(self, *, is_over: bool) -> None:
        """Compare the batch that stood out once more when its time has come, and charge what was spent."""
        if self._inspector.is_repeat_due(self._history.step, is_over=is_over):
            self._keep(self._closer(lambda: self._inspector.repeat(self._history.step)))
        self._monitor.charge(NORM_COST + self._inspector.spent - self._charged)
        self._charged = self._inspector.spent

    def go_on(self) -> None:
        """Take the spikes of the history as looked at already: the run was interrupted after them."""
        self._n_episodes = len(self._history.spikes.episodes)

    @property
    def _is_spike_new(self) -> bool:
        history = self._history
        is_broken = not math.isfinite(history.losses[-1]) and history.step - self._broke_at >= BETWEEN_ALARMS
        return len(history.spikes.episodes) > self._n_episodes or is_broken

    def _wants_reading(self, reading: Measurement | None) -> bool:
        """Whether S is to be read out of turn: the gradient or the loss stands out, and the last reading is old."""
        step = self._history.step
        if reading is not None and reading.sharpness_ratio is not None:
            self._read_at = step
            return False
        if not math.isfinite(self._history.losses[-1]):
            return False
        is_new = self._is_spike_new
        wait = FRESH if is_new else BETWEEN_ALARMS
        if not (is_new or self._is_alarm) or step - self._alarmed_at < wait or step - self._read_at < FRESH:
            return False
        paid = (READINGS_IN_ADVANCE if is_new else 1) + READING_SHARE * self._overhead * len(
            self._history.losses
        ) / READING_COST
        if self._n_extra + 1 > paid:
            return False
        self._n_extra += 1
        self._read_at = self._alarmed_at = step
        return True

    def _logits(self, closure: Callable[[], Tensor]) -> tuple[float, ...] | None:
        """The largest logits, if this loss has any and they are due, or a gradient stands out since long."""
        step = self._history.step
        every = self._history.spec.every or math.ceil(FORWARD_COST / (LOGIT_SHARE * self._overhead))
        is_alarmed = self._is_alarm and step - self._looked_at >= BETWEEN_LOGITS
        if self._n_blind_looks >= MOST_BLIND_LOOKS or not (step % every == 0 or is_alarmed):
            return None
        self._looked_at = step
        found = self._closer(lambda: self._inspector.logits(closure))
        self._n_blind_looks = 0 if found else self._n_blind_looks + 1
        return found or None

    def _keep(self, inspection: Inspection | None) -> None:
        if inspection is not None:
            self._history.inspections.append(inspection)

    def _closer(self, look: Callable[[], Found]) -> Found | None:
        """Look closer, unless an earlier look could not: what the closure raises there is noted and ends no trial."""
        if self.note is not None:
            return None
        try:
            return look()
        except Exception as error:  # the user's code, computed again where training itself would not have done so
            what = str(error).partition("\n")[0]
            self.note = f"without a closer look since step {self._history.step}: {type(error).__name__}: {what}"
            return None
