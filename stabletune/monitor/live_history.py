"""The history of a training that is watched in the user's own loop: what alerts judge."""

from __future__ import annotations

import math
from typing import Any

import torch

from stabletune.hyperparameters import default_settings
from stabletune.judgement.history import History
from stabletune.judgement.rules import is_growing
from stabletune.judgement.spikes import SpikeDetector
from stabletune.monitor.stability_monitor import StabilityMonitor
from stabletune.records import OWN_LOOP, Measurement, TrialSpec, WorkloadReference
from stabletune.signals.gradient_norm import held_gradient_norm


class LiveHistory:
    """Adds each step to a ``History``, with the settings that the optimizer holds then.

    Args:
        monitor: gives the readings; asked for a glance where the gradient grows.
        loss_floor: the loss's lower bound.
    """

    def __init__(self, monitor: StabilityMonitor, *, loss_floor: float = 0.0) -> None:
        self._monitor = monitor
        self._params: dict[str, Any] = default_settings()
        self.history = History(_spec(self._params), SpikeDetector(loss_floor))

    def add(self, loss: float, reading: Measurement | None) -> Measurement | None:
        """Take a step; its reading, completed by what the optimizer's state tells where the gradient grows.

        Raises:
            LossFloorError: the loss is at or below ``loss_floor``.
        """
        optimizer = self._monitor.optimizer
        self._params.update(_settings(optimizer))
        self.history.add(loss, gradient_norm=held_gradient_norm(optimizer), lr=self._params["lr"])
        if is_growing(self.history.gradient_norms) and (reading is None or reading.oscillation_energy is None):
            glance = self._monitor.glance(loss)
            reading = glance if reading is None else reading.completed_by(glance)
        if reading is not None:
            self.history.measurements.append(reading)
        return reading


def as_number(loss: torch.Tensor | float) -> float:
    """A loss as a number; of a tensor this waits for its device."""
    return float(loss.detach()) if isinstance(loss, torch.Tensor) else float(loss)


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
        workload=WorkloadReference(OWN_LOOP),
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
