"""A training loop with a fault built in: one function per cause, reached through the public ``train(trial)``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.diagnosis.later_tasks import TASKS
from benchmarks.diagnosis.tasks import Batch, Task, full_batch
from stabletune import Training, Trial

BAD = 2  # which batch of an epoch is the bad one
EPOCH_OF_FULL_BATCH = 40


@dataclasses.dataclass
class Run:
    """What an injection may reach: the task, the optimizer and its settings, and the step that is about to begin."""

    task: Task
    optimizer: torch.optim.Optimizer
    at: int
    strength: float
    step: int = 0
    anchor: list[Tensor] = dataclasses.field(default_factory=list)
    directions: list[Tensor] = dataclasses.field(default_factory=list)

    @property
    def age(self) -> int:
        """Steps since the injection; negative before it."""
        return self.step - self.at

    def params(self) -> list[Tensor]:
        """The parameters."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]


def build(seed: int, device: torch.device, *, task: str, cause: str, strength: float) -> Training:
    """The same faults where the data or the precision carry them, for stabletune's own loop."""
    made = TASKS[task](seed)
    batches = list(made.batches)
    if cause == "bad batch":
        inputs, targets = batches[BAD]
        noise = torch.randperm(len(targets), generator=torch.Generator().manual_seed(seed))
        batches[BAD] = (
            (inputs, targets.flatten().roll(7).reshape(targets.shape))
            if targets.dim() > 1
            else (
                inputs,
                targets[noise],
            )
        )
        return Training(model=made.model, loss_fn=lambda model, batch: made.loss(batch), batches=batches)
    scaled = [(inputs, targets * strength) for inputs, targets in batches]

    def loss_fn(model: torch.nn.Module, batch: Batch) -> Tensor:
        return made.criterion(model(batch[0]) * strength, batch[1])  # an output that float16 cannot hold for long

    return Training(model=made.model, loss_fn=loss_fn, batches=scaled, precision="float16")


def train(trial: Trial, *, task: str, cause: str, at: int, strength: float) -> None:
    """Train ``task`` with ``cause`` built in from step ``at`` on."""
    made = TASKS[task.removeprefix("full:")](trial.seed)
    if task.startswith("full:"):
        made = full_batch(made)
    trial.watch(made.model)
    optimizer = trial.build_optimizer(made.model.parameters())
    run = Run(made, optimizer, at, strength)
    kind, _, variant = cause.partition(":")
    before, loss_of = _KINDS.get(kind, (_nothing, _plain))
    n = len(made.batches)
    for step in range(trial.steps):
        run.step = step
        before(run, variant)
        batch = _batch(run, kind, variant, step % n)
        optimizer.zero_grad()
        loss = loss_of(run, batch, variant)
        loss.backward()
        optimizer.step()
        is_glitch = cause == "unexplained:glitch" and run.age == 0
        if trial.step(loss.detach() * (1 + strength * is_glitch), lambda: loss_of(run, batch, variant)):  # noqa: B023
            break


def _nothing(run: Run, variant: str) -> None:
    """No fault."""


def _plain(run: Run, batch: Batch, variant: str) -> Tensor:
    return run.task.loss(batch)


def _batch(run: Run, kind: str, variant: str, position: int) -> Batch:
    inputs, targets = run.task.batches[position]
    n = len(run.task.batches)
    period = n if n > 1 else EPOCH_OF_FULL_BATCH
    if kind != "bad batch" or run.age < 0 or run.age % period != min(BAD, period - 1):
        return inputs, targets
    if variant == "inputs":
        return inputs * run.strength, targets
    if targets.is_floating_point() and not bool(((targets == 0) | (targets == 1)).all()):
        return inputs, targets * run.strength
    if targets.is_floating_point():
        return inputs, 1 - targets
    return inputs, targets.flatten().roll(7).reshape(targets.shape)


def _jump(run: Run, variant: str) -> None:
    n_steps = 3 if variant == "ramp" else 1
    if 0 <= run.age < n_steps:
        for group in run.optimizer.param_groups:
            group["lr"] *= run.strength ** (1 / n_steps)


@torch.no_grad()
def _kick(run: Run, variant: str) -> None:
    if run.age != 0 or variant == "glitch":
        return
    params = run.params()
    generator = torch.Generator().manual_seed(run.step)
    chosen = params if variant != "layer" else [max(params, key=lambda p: p.numel())]
    for p in chosen:
        noise = torch.randn(p.shape, generator=generator)
        p.add_(noise, alpha=run.strength * float(p.square().mean().sqrt()))


@torch.no_grad()
def _grow_logits(run: Run, variant: str) -> None:
    if run.age < 0:
        return
    for p in run.task.readout.parameters():
        p.mul_(run.strength)


@torch.no_grad()
def _anchor(run: Run, variant: str) -> None:
    if run.age != 0:
        return
    run.anchor = [p.clone() for p in run.params()]
    generator = torch.Generator().manual_seed(run.step)
    run.directions = [torch.randn(p.shape, generator=generator) / p.numel() ** 0.5 for p in run.params()]


def _sharpened(run: Run, batch: Batch, variant: str) -> Tensor:
    """The curvature along a few random directions grows, with its bottom where training was at the injection."""
    loss = run.task.loss(batch)
    if run.age < 0:
        return loss
    stiffness = 1e-3 * run.strength**run.age
    for p, anchor, direction in zip(run.params(), run.anchor, run.directions, strict=True):
        if variant == "all":
            loss = loss + 0.5 * stiffness * (p - anchor).square().sum()
        else:
            loss = loss + 0.5 * stiffness * ((p - anchor) * direction).sum().square()
    return loss


def _narrow(run: Run, batch: Batch, variant: str) -> Tensor:
    """Arithmetic that leaves the range of its format once a factor has grown large, or whose gradient is undefined."""
    gain = min(run.strength ** max(0, run.age), 1e30)
    if variant == "gradient":
        loss = run.task.loss(batch)
        return loss if run.age < 0 else loss + sum((p * 0.0).square().sum().sqrt() for p in run.params())
    with torch.autocast("cpu", dtype=torch.float16, enabled=variant == "float16"):
        out = run.task.model(batch[0])
        if variant == "float16":
            out = (out.half() * gain / gain).float()
        elif run.age >= 0:
            out = (out * gain).exp().log() / gain
        return run.task.criterion(out, batch[1])


_KINDS: dict[str, tuple[Callable[[Run, str], None], Callable[[Run, Batch, str], Tensor]]] = {
    "schedule jump": (_jump, _plain),
    "bad batch": (_nothing, _plain),
    "unexplained": (_kick, _plain),
    "logit growth": (_grow_logits, _plain),
    "sharpening landscape": (_anchor, _sharpened),
    "precision or overflow": (_nothing, _narrow),
}
