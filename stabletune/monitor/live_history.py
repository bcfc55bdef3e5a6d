"""The history of a training that is watched in the user's own loop: what alerts judge."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from stabletune.hyperparameters import default_settings
from stabletune.judgement.history import History
from stabletune.judgement.spikes import SpikeDetector
from stabletune.monitor.inspection.spike_watch import SpikeWatch
from stabletune.monitor.stability_monitor import StabilityMonitor
from stabletune.records import OWN_LOOP, Measurement, TrialSpec, WorkloadReference

_log = logging.getLogger("stabletune")


class LiveHistory:
    """Adds each step to a ``History``, with the settings that the optimizer holds then, and looks closer at spikes.

    Args:
        monitor: gives the readings, and pays for what is looked at out of turn.
        loss_floor: the loss's lower bound.
    """

    def __init__(self, monitor: StabilityMonitor, *, loss_floor: float = 0.0) -> None:
        self._monitor = monitor
        self._params: dict[str, Any] = default_settings()
        self.history = History(_spec(self._params, monitor), SpikeDetector(loss_floor))
        self._watch = SpikeWatch(self.history, monitor)
        self._note: str | None = None

    def add(
        self, loss: float, reading: Measurement | None, closure: Callable[[], Tensor] | None = None
    ) -> Measurement | None:
        """Take a step; its reading, completed by what stood out enough to be read out of turn.

        What the closure raises is logged once, and nothing is read or looked at out of turn from there on.

        Args:
            loss: of the step.
            reading: what ``monitor.step`` gave.
            closure: computes the step's loss again; kept for a few steps, with the batch that it holds.

        Raises:
            LossFloorError: the loss is at or below the floor.
        """
        if not self.history.losses:
            self.history.begin_after(max(0, self._monitor.n_steps - 1))
        self._params.update(_settings(self._monitor.optimizer))
        if self._note is not None:
            closure = None
        self._watch.record(loss, closure)
        try:
            reading = self._watch.complete(loss, closure, reading)
        except Exception as error:  # the user's code, computed where training itself would not have done so
            self._stop_looking(f"step {self.history.step}: {type(error).__name__}: {error}")
        if reading is not None:
            self.history.measurements.append(reading)
        self._watch.inspect()
        self._watch.conclude(is_over=False)
        if self._watch.note is not None:
            self._stop_looking(self._watch.note)
        return reading

    def _stop_looking(self, note: str) -> None:
        if self._note is None:
            self._note = note
            _log.warning("stabletune: no closer look at spikes any more: %s", note)


def _settings(optimizer: Optimizer) -> dict[str, Any]:
    """What the optimizer's first group says of the hyperparameters, as far as it has them; the largest lr of all."""
    group = optimizer.param_groups[0]
    beta1, beta2 = group.get("betas", (0.0, group.get("alpha", math.nan)))
    named = {name: group[name] for name in default_settings() if name in group}
    lr = max(float(group["lr"]) for group in optimizer.param_groups)
    return {**named, "lr": lr, "beta1": float(beta1), "beta2": float(beta2)}


def _spec(params: dict[str, Any], monitor: StabilityMonitor) -> TrialSpec:
    """A run of unknown length that nothing stops; ``params`` are kept up to date from outside."""
    return TrialSpec(
        number=0,
        purpose="search",
        seed=0,
        steps=0,
        full_steps=0,
        params=params,
        workload=WorkloadReference(OWN_LOOP),
        workload_args={},
        schedule="constant",
        metric="final_loss",
        source="train",
        target=None,
        overhead=monitor.limit if monitor.every is None else None,
        every=monitor.every,
        stops_on_spike=False,
        predicts=True,
    )
