"""Five training tasks on which plain AdamW spikes, at settings at which it does: four by itself, one by bad data."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch.nn import functional

from stabletune import Training
from stabletune.records import WorkloadReference
from stabletune.trial.workload import load_function

CPU = torch.device("cpu")


@dataclasses.dataclass(frozen=True)
class Task:
    """``build(seed)`` makes it; ``settings`` are plain AdamW's; ``watch`` gives the loss judged, if not the batch's."""

    build: Callable[[int], Training]
    settings: Mapping[str, Any]
    n_steps: int
    watch: Callable[[torch.nn.Module], torch.Tensor] | None = None


def shipped(name: str) -> Callable[[int], Training]:
    """A workload of the package, as it comes."""
    build = load_function(WorkloadReference(name))
    return lambda seed: build(seed, CPU)


class Recurrent(torch.nn.Module):
    """A tanh recurrent net of 24 units that reads a sequence and answers with one number."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = torch.nn.RNN(1, 24, batch_first=True)
        self.readout = torch.nn.Linear(24, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, length) to (n,)."""
        return self.readout(self.rnn(x.unsqueeze(-1))[0][:, -1]).squeeze(-1)


def recurrent(seed: int) -> Training:
    """The product of the first and the last of six numbers, 64 sequences, full batch."""
    torch.manual_seed(seed)
    x = 2 * torch.rand(64, 6) - 1
    return Training(
        Recurrent(), lambda model, batch: functional.mse_loss(model(batch[0]), batch[1]), [(x, x[:, 0] * x[:, -1])]
    )


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """Images and one-hot labels."""
    data = load_digits()
    return torch.tensor(data.data / 16.0).float(), functional.one_hot(torch.tensor(data.target), 10).float()


class BadBatches:
    """Batches of 64 digits; one in 200 comes with its images 20 times too large, as from a broken reader."""

    def __init__(self, seed: int) -> None:
        self.images, self.labels = digits()
        self.draw = torch.Generator().manual_seed(seed)

    def __iter__(self) -> Any:
        while True:
            index = torch.randint(len(self.images), (64,), generator=self.draw)
            is_bad = float(torch.rand((), generator=self.draw)) < 1 / 200
            yield self.images[index] * (20.0 if is_bad else 1.0), self.labels[index]


def tabular(seed: int) -> Training:
    """A ReLU net on the 64 pixels as features, squared error, minibatches."""
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
    return Training(model, lambda model, batch: functional.mse_loss(model(batch[0]), batch[1]), BadBatches(seed))


def clean_loss(model: torch.nn.Module) -> torch.Tensor:
    """The loss on 500 good images, which tells what a bad batch did rather than what it was."""
    images, labels = CLEAN
    return functional.mse_loss(model(images), labels)


CLEAN = tuple(part[:500] for part in digits())
TASKS = {
    "tanh regression": Task(shipped("tanh_regression"), {"lr": 0.02}, 1500),
    "diabetes MLP": Task(shipped("diabetes_mlp"), {"lr": 0.01}, 1200),
    "PINN": Task(shipped("pinn"), {"lr": 0.005}, 1000),
    "recurrent": Task(recurrent, {"lr": 0.01}, 800),
    "bad batches": Task(tabular, {"lr": 0.003}, 800, clean_loss),
}
