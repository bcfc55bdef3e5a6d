"""Trains a workload with the package's optimizer and monitor and keeps what was read, step by step.

A ``Training`` and a ``Setting`` flow in, a ``Trace`` out: the losses, the measurements, the spikes by both definitions.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stabletune import InstrumentedAdamW, StabilityMonitor
from stabletune.judgement.spikes import find_spikes
from stabletune.records import Episode, Measurement
from stabletune.schedules import lr_factor
from stabletune.trial.training import Training

CPU = torch.device("cpu")
MEDIAN_OF = 50
REFRACTORY = 50
LEAD = 10
"""A crossing is followed by a spike that starts within it or at most this many steps after its end."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """AdamW's settings; the rate is constant after a linear warm-up."""

    lr: float
    beta1: float = 0.9
    beta2: float
    eps: float = 1e-8
    weight_decay: float = 0.0
    warmup_steps: int = 0


@dataclasses.dataclass(frozen=True)
class Crossing:
    """A stay above the edge: its first and its last step."""

    start: int
    end: int


@dataclasses.dataclass(frozen=True)
class Trace:
    """One run. Step k has the loss before the k-th update and, where measured, the signals after it."""

    losses: NDArray[np.float64]
    measurements: tuple[Measurement, ...]
    loss_floor: float = 0.0

    def read(self, field: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The steps at which ``field`` was measured, and its values."""
        found = [(m.step, getattr(m, field)) for m in self.measurements if getattr(m, field) is not None]
        steps, values = zip(*found, strict=True) if found else ((), ())
        return np.array(steps, dtype=np.int64), np.array(values, dtype=np.float64)

    def at(self, field: str, step: int) -> float:
        """The value of ``field`` at a step, or at the last measured step before it."""
        steps, values = self.read(field)
        return float(values[np.searchsorted(steps, step, side="right") - 1])

    @functools.cached_property
    def episodes(self) -> list[Episode]:
        """The spikes by stabletune's definition."""
        return find_spikes(self.losses, self.loss_floor).episodes

    @functools.cached_property
    def doublings(self) -> list[int]:
        """The first steps of the spikes by the plain definition: above twice the median of the 50 before."""
        return doublings(self.losses)

    def crossings(self, field: str, *, sustained: int = 1) -> list[Crossing]:
        """The stays above 1 of at least ``sustained`` steps; what lies within 50 steps of another is one with it."""
        steps, values = self.read(field)
        return stays_above(steps, values, sustained=sustained)

    def first_crossing(self, field: str = "sharpness_ratio") -> int | None:
        """The first step at which ``field`` is above 1."""
        steps, values = self.read(field)
        above = steps[values > 1]
        return int(above[0]) if above.size else None


def train(
    training: Training,
    setting: Setting,
    *,
    steps: int,
    every: int | None = None,
    dense: Collection[int] = (),
    on_step: Callable[[int, torch.optim.Optimizer], None] | None = None,
) -> Trace:
    """Train for some steps and measure on the run's first batch.

    Args:
        training: what to train, of any built-in workload.
        setting: the optimizer's settings.
        steps: the number of updates.
        every: measure at each N-th step; without it, nothing is measured.
        dense: further steps to measure at.
        on_step: called after each update with its number.
    """
    model = training.model.train()
    optimizer = _optimizer(model, setting)
    batches = _endless(training)
    probe = next(batches)
    batch = probe
    monitor = StabilityMonitor(model, optimizer, every=every) if every is not None else None

    def probe_loss() -> torch.Tensor:
        return training.loss_fn(model, probe)

    losses = np.empty(steps)
    measurements: list[Measurement] = []
    for step in range(1, steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = setting.lr * _factor(setting, step, steps)
        optimizer.zero_grad()
        loss = training.loss_fn(model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses[step - 1] = float(loss.detach())
        if monitor is not None:
            reading = monitor.step(losses[step - 1], probe_loss)
            if reading is None and step in dense:
                reading = monitor.measure(losses[step - 1], probe_loss)
            measurements += [reading] if reading is not None else []
        if on_step is not None:
            on_step(step, optimizer)
        batch = next(batches)
    return Trace(losses, tuple(measurements), training.loss_floor)


def doublings(losses: NDArray[np.float64]) -> list[int]:
    """The steps above twice the median of the 50 losses before, none within 50 steps of the last that counted."""
    starts: list[int] = []
    last = -REFRACTORY
    for index in range(MEDIAN_OF, losses.size):
        if index - last >= REFRACTORY and losses[index] > 2 * np.median(losses[index - MEDIAN_OF : index]):
            starts.append(index + 1)
            last = index
    return starts


def stays_above(steps: NDArray[np.int64], values: NDArray[np.float64], *, sustained: int = 1) -> list[Crossing]:
    """The stays of ``values`` above 1 that last at least ``sustained`` steps, merged when closer than 50 steps."""
    stays: list[Crossing] = []
    start: int | None = None
    for index, step in enumerate(steps.tolist()):
        if values[index] > 1 and start is None:
            start = step
        is_last = index + 1 == steps.size
        if start is not None and (is_last or values[index + 1] <= 1):
            if step - start + 1 >= sustained:
                stays = _joined(stays, Crossing(start, step))
            start = None
    return stays


def n_followed(crossings: Sequence[Crossing], spikes: Sequence[int]) -> int:
    """How many crossings have a spike that starts between their first step and ``LEAD`` steps after their last."""
    return sum(any(c.start <= spike <= c.end + LEAD for spike in spikes) for c in crossings)


def n_preceded(spikes: Sequence[int], crossings: Sequence[Crossing]) -> int:
    """How many spikes start during a crossing or at most ``LEAD`` steps after one."""
    return sum(any(c.start <= spike <= c.end + LEAD for c in crossings) for spike in spikes)


def share_in_reach(crossings: Sequence[Crossing], n_steps: int) -> float:
    """The share of a run's steps from which a crossing would count as preceding: what chance alone would give."""
    reached = np.zeros(n_steps + 1, dtype=bool)
    for crossing in crossings:
        reached[crossing.start : crossing.end + LEAD + 1] = True
    return float(reached[1:].mean())


def _joined(stays: list[Crossing], new: Crossing) -> list[Crossing]:
    if stays and new.start - stays[-1].end < REFRACTORY:
        return [*stays[:-1], Crossing(stays[-1].start, new.end)]
    return [*stays, new]


def _optimizer(model: torch.nn.Module, setting: Setting) -> InstrumentedAdamW:
    return InstrumentedAdamW(
        model.parameters(),
        lr=setting.lr,
        betas=(setting.beta1, setting.beta2),
        eps=setting.eps,
        weight_decay=setting.weight_decay,
    )


def _factor(setting: Setting, step: int, steps: int) -> float:
    return lr_factor("constant", step - 1, warmup_steps=setting.warmup_steps, full_steps=steps)


def _endless(training: Training) -> Iterator[Any]:
    while True:
        yield from training.batches
