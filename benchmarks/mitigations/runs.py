"""One run of a task with some settings, and what a step of it costs beside an untouched one."""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from mitigations.tasks import Task
from stabletune import InstrumentedAdamW, Training
from stabletune.judgement.objective import objective_of
from stabletune.judgement.spikes import find_spikes
from stabletune.schedules import lr_factor, steps_of
from stabletune.trial.batch_stream import BatchStream

N_PAIRS, STEPS_OF_A_BLOCK, FIRST_STEPS = 9, 12, 20


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What is counted of one run."""

    n_spikes: int
    severity: float
    worst_ratio: float
    final_loss: float


def run(task: Task, settings: Mapping[str, Any], seed: int) -> Outcome:
    """Train from the seed and judge every step's loss; a loss that is not finite ends the run."""
    training = task.build(seed)
    take = stepper(training, {**task.settings, **settings}, task.n_steps)
    losses: list[float] = []
    for _ in range(task.n_steps):
        loss = take()
        if task.watch is not None:
            with torch.no_grad():
                loss = task.watch(training.model)
        losses.append(float(loss))
        if not math.isfinite(losses[-1]):
            break
    found = find_spikes(losses)
    return Outcome(
        n_spikes=len(found.episodes) + found.diverged,
        severity=math.inf if found.diverged else sum(episode.severity for episode in found.episodes),
        worst_ratio=math.inf if found.diverged else max((e.worst_ratio for e in found.episodes), default=1.0),
        final_loss=math.inf if found.diverged else objective_of("final_loss", losses),
    )


def cost_ratio(task: Task, settings: Mapping[str, Any]) -> float:
    """CPU time of a step with the settings over one without, both past their first steps, in alternating blocks."""
    ours, theirs = (stepper(task.build(0), {**task.settings, **more}, task.n_steps) for more in (settings, {}))
    for _ in range(FIRST_STEPS):
        ours()
        theirs()
    return statistics.median(_seconds(ours) / _seconds(theirs) for _ in range(N_PAIRS))


def stepper(training: Training, settings: Mapping[str, Any], n_steps: int) -> Callable[[], torch.Tensor]:
    """A function that takes one training step and returns its loss."""
    adam = dict(settings)
    beta2, warmup_ratio = adam.pop("beta2", 0.999), adam.pop("warmup_ratio", 0.0)
    optimizer = InstrumentedAdamW(training.model.parameters(), betas=(0.9, beta2), **adam)
    warmup_steps = steps_of(warmup_ratio, n_steps)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: lr_factor("constant", step, warmup_steps=warmup_steps, full_steps=n_steps)
    )
    batches = BatchStream(training.batches)

    def take() -> torch.Tensor:
        optimizer.zero_grad()
        loss = training.loss_fn(training.model, next(batches))
        loss.backward()
        optimizer.step()
        schedule.step()
        return loss.detach()

    return take


def _seconds(take: Callable[[], object]) -> float:
    started = time.process_time()
    for _ in range(STEPS_OF_A_BLOCK):
        take()
    return time.process_time() - started
