"""Training runs to be measured along: the three networks, full-batch runs at the edge, and an eigenvalue crossing."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.signals.models import TASKS, Task
from stabletune.trial.workloads import diabetes_mlp, tanh_regression


@dataclasses.dataclass(frozen=True)
class Run:
    """A task with its optimizer; ``skipped`` steps come before the first measurement; ``set_rates`` sets each lr."""

    name: str
    task: Task
    optimizer: torch.optim.AdamW
    skipped: int = 0
    set_rates: Callable[[int], None] = lambda step: None
    n_taken: list[int] = dataclasses.field(default_factory=lambda: [0])

    def step(self) -> float:
        """Take one training step; return the loss before it."""
        self.n_taken[0] += 1
        self.set_rates(self.n_taken[0])
        self.optimizer.zero_grad()
        loss = self.task.loss(next(self.task.batches))
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())

    def probe_loss(self) -> Tensor:
        return self.task.loss(self.task.probe)


def minibatch(name: str, lr: float, *, n_probed: int | None = None) -> Run:
    """One of the three networks on its minibatches; ``n_probed`` rows of the probe batch, all by default."""
    task = TASKS[name](lr=lr)
    task = dataclasses.replace(task, probe=(task.probe[0][:n_probed], task.probe[1][:n_probed]))
    return Run(f"{name}, lr {lr:g}, probe of {len(task.probe[0])}", task, task.optimizer())


def tanh(*, beta2: float, lr: float = 0.02, seed: int = 0, skipped: int = 0) -> Run:
    """Fifty tanh units on sin x + sin 4x, full batch: climbs to the edge and spikes."""
    training = tanh_regression.build(seed, torch.device("cpu"))
    return _full_batch("tanh regression", training.model, training.batches[0], (lr, beta2, skipped))  # type: ignore[index]


def diabetes(*, beta2: float, lr: float = 0.01, seed: int = 0, skipped: int = 0) -> Run:
    """A tanh network on scikit-learn's diabetes, full batch: its loss jumps by 50 near step 570 at beta2 .999."""
    training = diabetes_mlp.build(seed, torch.device("cpu"))
    return _full_batch("diabetes", training.model, training.batches[0], (lr, beta2, skipped))  # type: ignore[index]


def crossing(n_steps: int) -> Run:
    """Two nets that share no parameter, one's lr falling while the other's rises: their top eigenvalues cross."""
    pair = _Pair()
    inputs, targets = tanh_regression.build(0, torch.device("cpu")).batches[0]  # type: ignore[index]
    batch = (inputs, torch.stack([targets, torch.sin(2 * inputs)], dim=1))
    task = Task("crossing", pair, torch.nn.MSELoss(), batch, itertools.repeat(batch), 5e-3)
    groups = [{"params": list(half.parameters())} for half in pair.halves]
    optimizer = torch.optim.AdamW(groups, lr=task.lr, betas=(0.9, 0.99), fused=True)

    def set_rates(step: int) -> None:
        share = min(1.0, step / n_steps)
        for group, factor in zip(optimizer.param_groups, (1.5 - share, 0.5 + share), strict=True):
            group["lr"] = task.lr * factor

    return Run("crossing of two nets", task, optimizer, set_rates=set_rates)


def _full_batch(
    name: str, model: torch.nn.Module, batch: tuple[Tensor, Tensor], setting: tuple[float, float, int]
) -> Run:
    lr, beta2, skipped = setting
    task = Task(name, model, torch.nn.MSELoss(), batch, itertools.repeat(batch), lr, beta2)
    return Run(f"{name}, lr {lr:g}, beta2 {beta2:g}", task, task.optimizer(), skipped)


class _Pair(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.halves = torch.nn.ModuleList([tanh_regression.build(seed, torch.device("cpu")).model for seed in (1, 2)])

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.stack([half(inputs) for half in self.halves], dim=1)
