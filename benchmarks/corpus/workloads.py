"""Workloads of the corpus beside the built-in ones: each ``build_...`` is named by a family."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine

from stabletune.records import WorkloadReference
from stabletune.trial.training import Precision, Training
from stabletune.trial.workload import load_function

TABLES = {"breast_cancer": load_breast_cancer, "wine": load_wine, "iris": load_iris}


class Batches:
    """The rows in random batches, in another order each epoch; all at once, in order, for ``batch_size`` None."""

    def __init__(self, *columns: torch.Tensor, batch_size: int | None, seed: int) -> None:
        self._columns = columns
        self._batch_size = batch_size
        self._generator = torch.Generator().manual_seed(seed)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, ...]]:
        n_rows = len(self._columns[0])
        if self._batch_size is None:
            yield self._columns
            return
        order = torch.randperm(n_rows, generator=self._generator)
        for start in range(0, n_rows - self._batch_size + 1, self._batch_size):
            chosen = order[start : start + self._batch_size]
            yield tuple(column[chosen] for column in self._columns)


CROSS_ENTROPY_FLOOR = -1e-9
"""Just below the true bound 0, which memorized data reach exactly in float32."""


def build_built_in(
    seed: int,
    device: torch.device,
    *,
    name: str,
    precision: Precision = "float32",
    loss_floor: float | None = None,
    **arguments: Any,
) -> Training:
    """One of the package's own workloads, in another precision or with another floor."""
    training: Training = load_function(WorkloadReference(name))(seed, device, **arguments)
    floor = training.loss_floor if loss_floor is None else loss_floor
    return dataclasses.replace(training, precision=precision, loss_floor=floor)


def build_table(
    seed: int,
    device: torch.device,
    *,
    table: str,
    width: int,
    batch_size: int | None = None,
    precision: Precision = "float32",
) -> Training:
    """A ReLU network with cross-entropy on one of scikit-learn's small tables."""
    data, target = TABLES[table](return_X_y=True)
    x = torch.tensor((data - data.mean(0)) / data.std(0)).float().to(device)
    y = torch.tensor(target).to(device)
    model = torch.nn.Sequential(
        torch.nn.Linear(x.shape[1], width),
        torch.nn.ReLU(),
        torch.nn.Linear(width, width),
        torch.nn.ReLU(),
        torch.nn.Linear(width, int(y.max()) + 1),
    )
    batches = Batches(x, y, batch_size=batch_size, seed=seed)
    return Training(
        model=model,
        loss_fn=_cross_entropy,
        batches=batches,
        loss_floor=CROSS_ENTROPY_FLOOR,
        precision=precision,
    )


def build_cnn_mse(
    seed: int, device: torch.device, *, channels: int, batch_size: int | None = None, precision: Precision = "float32"
) -> Training:
    """A convolutional network without normalization on 400 digits, with the squared error of one-hot labels."""
    digits = load_digits()
    x = torch.tensor(digits.images[:400] / 16.0).float().unsqueeze(1).to(device)
    y = torch.nn.functional.one_hot(torch.tensor(digits.target[:400])).float().to(device)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, channels, 3, stride=2, padding=1),
        torch.nn.Tanh(),
        torch.nn.Conv2d(channels, channels, 3, stride=2, padding=1),
        torch.nn.Tanh(),
        torch.nn.Flatten(),
        torch.nn.Linear(4 * channels, 10),
    )
    batches = Batches(x, y, batch_size=batch_size, seed=seed)
    return Training(model=model, loss_fn=_squared_error, batches=batches, precision=precision)


class Recurrent(torch.nn.Module):
    """A recurrent layer of one of torch's kinds, read out at every step."""

    def __init__(self, kind: Callable[..., torch.nn.Module], width: int) -> None:
        super().__init__()
        self.layer = kind(1, width, batch_first=True)
        self.readout = torch.nn.Linear(width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden, _ = self.layer(x)
        return self.readout(hidden)


def build_recurrent(
    seed: int,
    device: torch.device,
    *,
    kind: str,
    width: int,
    batch_size: int | None = None,
    precision: Precision = "float32",
) -> Training:
    """A GRU or a tanh network that predicts the next value of sums of two sines."""
    t = torch.arange(25) / 4.0
    generator = torch.Generator().manual_seed(0)  # the same task for every seed
    phase, speed = torch.rand(2, 48, 1, generator=generator)
    waves = torch.sin(2 * math.pi * phase + (0.5 + speed) * t) + 0.5 * torch.sin(3 * (0.5 + speed) * t)
    waves = waves.unsqueeze(-1).to(device)
    model = Recurrent({"gru": torch.nn.GRU, "tanh": torch.nn.RNN}[kind], width)
    batches = Batches(waves[:, :-1], waves[:, 1:], batch_size=batch_size, seed=seed)
    return Training(model=model, loss_fn=_squared_error, batches=batches, precision=precision)


def _cross_entropy(model: torch.nn.Module, batch: Iterable[torch.Tensor]) -> torch.Tensor:
    x, y = batch
    return torch.nn.functional.cross_entropy(model(x), y)


def _squared_error(model: torch.nn.Module, batch: Iterable[torch.Tensor]) -> torch.Tensor:
    x, y = batch
    return torch.nn.functional.mse_loss(model(x), y)
