"""Plain training with torch.optim.AdamW, judged by the spike definition: what the other methods are made of."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from benchmarks.search.tasks import Task
from stabletune.judgement.objective import objective_of
from stabletune.judgement.spikes import SpikeDetector
from stabletune.trial.batch_stream import BatchStream


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is tuned."""

    lr: float
    beta2: float


@dataclasses.dataclass(frozen=True)
class Run:
    """One training run: its losses, whether it spiked, and by how much at worst against the limit 1."""

    losses: tuple[float, ...]
    is_spiky: bool
    worst_score: float

    @property
    def final_loss(self) -> float:
        """Median of the last 5 % of the losses; infinite if one is not finite."""
        return objective_of("final_loss", self.losses) if math.isfinite(self.losses[-1]) else math.inf


def train(
    task: Task,
    setting: Setting,
    seed: int,
    n_steps: int,
    *,
    stops_on_spike: bool,
    report: Callable[[list[float]], None] = lambda losses: None,
    lr_at: Callable[[int], float] | None = None,
) -> Run:
    """Train until ``n_steps``, a loss that is not finite or, if asked to, the first spike.

    ``report`` is given the losses after each step, and may raise to end the run.
    """
    training = task.build(seed)
    optimizer = torch.optim.AdamW(training.model.parameters(), lr=setting.lr, betas=(0.9, setting.beta2))
    spikes, batches, losses = SpikeDetector(training.loss_floor), BatchStream(training.batches), []
    for step in range(n_steps):
        if lr_at is not None:
            optimizer.param_groups[0]["lr"] = lr_at(step)
        optimizer.zero_grad()
        loss = training.loss_fn(training.model, next(batches))
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
        spikes.update(losses[-1])
        report(losses)
        if spikes.diverged or (stops_on_spike and spikes.episodes):
            break
    is_spiky = spikes.diverged or bool(spikes.episodes)
    return Run(tuple(losses), is_spiky, math.inf if spikes.diverged else spikes.worst_score)


def initial_loss(task: Task) -> float:
    """Median of the first losses over five starts."""
    losses = []
    for seed in range(5):
        training = task.build(seed)
        losses.append(float(training.loss_fn(training.model, next(iter(training.batches))).detach()))
    return float(np.median(losses))


@contextlib.contextmanager
def counted_steps() -> Iterator[list[int]]:
    """Count every step of every torch optimizer in this process, whoever takes it."""
    count = [0]

    def add(*_: Any) -> None:
        count[0] += 1

    handle = register_optimizer_step_post_hook(add)
    try:
        yield count
    finally:
        handle.remove()
