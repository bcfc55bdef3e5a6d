"""The networks in which causes are injected.

Thresholds were chosen on ``TUNING``; what went wrong on ``HELD_OUT`` changed rules. ``later_tasks`` came after that.

Each is a model, a mean loss of one batch, and a list of batches that is gone through again and again.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from torch import Tensor, nn
from torch.nn import functional

from stabletune.trial.workloads.char_lm import TEXT, CharacterModel
from stabletune.trial.workloads.modular_division import OneLayerTransformer
from stabletune.trial.workloads.tanh_regression import TanhUnits

Batch = tuple[Tensor, Tensor]


@dataclasses.dataclass(frozen=True)
class Task:
    """One training task; ``readout`` is the module whose output the loss sees."""

    model: nn.Module
    criterion: Callable[[Tensor, Tensor], Tensor]
    batches: list[Batch]
    readout: nn.Module

    def loss(self, batch: Batch) -> Tensor:
        """The mean loss of one batch."""
        return self.criterion(self.model(batch[0]), batch[1])


def tanh_regression(seed: int) -> Task:
    """Fifty tanh units on sin x + sin 4x, full batch."""
    x = torch.linspace(-math.pi, math.pi, 200)
    model = TanhUnits(50, torch.Generator().manual_seed(seed), torch.float32)
    return Task(model, functional.mse_loss, [(x, torch.sin(x) + torch.sin(4 * x))], model)


def diabetes(seed: int) -> Task:
    """Tanh network on scikit-learn's diabetes data, full batch."""
    inputs, targets = map(standardized, _arrays(load_diabetes(return_X_y=True)))
    model = mlp(10, 48, 1, nn.Tanh)
    return Task(model, functional.mse_loss, [(inputs, targets.unsqueeze(1))], model[-1])


def digits_cnn(seed: int) -> Task:
    """Convolutional network with BatchNorm on 640 digits, ten minibatches, cross-entropy."""
    digits = load_digits()
    images, labels = torch.tensor(digits.images[:640] / 16.0).float().unsqueeze(1), mislabeled(digits.target[:640])
    readout = nn.Linear(8 * 16, 10)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), readout
    )
    return Task(model, functional.cross_entropy, split((images, labels), 10), readout)


def char_lm(seed: int) -> Task:
    """One-block causal transformer on characters, sixteen minibatches."""
    text = TEXT.read_text(encoding="utf-8")
    alphabet = {character: number for number, character in enumerate(sorted(set(text)))}
    windows = torch.tensor([alphabet[c] for c in text]).unfold(0, 17, 16)[:256]
    model = CharacterModel(len(alphabet), 16, 32, 1, 0.0)

    def criterion(logits: Tensor, following: Tensor) -> Tensor:
        return functional.cross_entropy(logits.flatten(0, 1), following.flatten())

    return Task(model, criterion, split((windows[:, :-1], windows[:, 1:]), 16), model.readout)


def teacher_mlp(seed: int) -> Task:
    """ReLU network that learns from another one, twelve minibatches, squared error."""
    generator = torch.Generator().manual_seed(7)
    inputs = torch.randn(768, 16, generator=generator)
    targets = torch.tanh(inputs @ torch.randn(16, 8, generator=generator)) @ torch.randn(8, 2, generator=generator)
    model = mlp(16, 64, 2, nn.ReLU)
    return Task(model, functional.mse_loss, split((inputs, targets), 12), model[-1])


def autoencoder(seed: int) -> Task:
    """Tanh autoencoder on 500 digits, full batch."""
    images = torch.tensor(load_digits().data[:500] / 16.0).float()
    model = nn.Sequential(
        nn.Linear(64, 48), nn.Tanh(), nn.Linear(48, 10), nn.Tanh(), nn.Linear(10, 48), nn.Tanh(), nn.Linear(48, 64)
    )
    return Task(model, functional.mse_loss, [(images, images)], model[-1])


def modular_division(seed: int) -> Task:
    """One-layer transformer on x / y mod 23, four minibatches."""
    p = 23
    rows = [(z * y % p, p, y, p + 1, z) for y in range(1, p) for z in range(p)]
    table = torch.tensor(rows)[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))][:400]
    model = OneLayerTransformer(p + 2, 4, 64, heads=4)
    return Task(model, functional.cross_entropy, split((table[:, :4], table[:, 4]), 4), model.readout)


class _LastOfGru(nn.Module):
    def __init__(self, n_inputs: int, width: int, n_outputs: int) -> None:
        super().__init__()
        self.recurrent = nn.GRU(n_inputs, width, batch_first=True)
        self.readout = nn.Linear(width, n_outputs)

    def forward(self, rows: Tensor) -> Tensor:
        out: Tensor = self.readout(self.recurrent(rows)[0][:, -1])
        return out


def gru(seed: int) -> Task:
    """GRU that reads digits row by row, ten minibatches, cross-entropy."""
    digits = load_digits()
    rows, labels = torch.tensor(digits.images[:640] / 16.0).float(), mislabeled(digits.target[:640])
    model = _LastOfGru(8, 32, 10)
    return Task(model, functional.cross_entropy, split((rows, labels), 10), model.readout)


def breast_cancer(seed: int) -> Task:
    """GELU network on scikit-learn's breast cancer data, full batch, binary cross-entropy."""
    inputs, labels = _arrays(load_breast_cancer(return_X_y=True))
    model = mlp(30, 32, 1, nn.GELU)
    batch = (standardized(inputs), labels.unsqueeze(1))
    return Task(model, functional.binary_cross_entropy_with_logits, [batch], model[-1])


def small_digits(seed: int) -> Task:
    """Tanh network that memorizes 200 digits, full batch, cross-entropy."""
    digits = load_digits()
    batch = (torch.tensor(digits.data[:200] / 16.0).float(), mislabeled(digits.target[:200]))
    model = mlp(64, 48, 10, nn.Tanh)
    return Task(model, functional.cross_entropy, [batch], model[-1])


def full_batch(task: Task) -> Task:
    """The same task with all batches in one."""
    inputs, targets = zip(*task.batches, strict=True)
    return dataclasses.replace(task, batches=[(torch.cat(inputs), torch.cat(targets))])


TUNING: dict[str, Callable[[int], Task]] = {
    "tanh_regression": tanh_regression,
    "digits_cnn": digits_cnn,
    "char_lm": char_lm,
    "teacher_mlp": teacher_mlp,
    "small_digits": small_digits,
}
HELD_OUT: dict[str, Callable[[int], Task]] = {
    "diabetes": diabetes,
    "autoencoder": autoencoder,
    "modular_division": modular_division,
    "gru": gru,
    "breast_cancer": breast_cancer,
}


def _arrays(pair: tuple[Any, Any]) -> tuple[Tensor, Tensor]:
    return torch.tensor(pair[0]).float(), torch.tensor(pair[1]).float()


def mislabeled(labels: Any, n_classes: int = 10) -> Tensor:
    """One label in ten is another: so that the loss does not vanish, as in real data."""
    found = torch.tensor(labels)
    found[::10] = (found[::10] + max(1, n_classes // 3)) % n_classes
    return found


def standardized(columns: Tensor) -> Tensor:
    """Columns of mean 0 and standard deviation 1."""
    return (columns - columns.mean(dim=0)) / columns.std(dim=0, correction=0)


def mlp(n_inputs: int, width: int, n_outputs: int, activation: Callable[[], nn.Module]) -> nn.Sequential:
    """Two hidden layers."""
    layers = [nn.Linear(n_inputs, width), activation(), nn.Linear(width, width), activation()]
    return nn.Sequential(*layers, nn.Linear(width, n_outputs))


def split(batch: Batch, n: int) -> list[Batch]:
    """A batch in ``n`` parts."""
    return list(zip(*(column.chunk(n) for column in batch), strict=True))
