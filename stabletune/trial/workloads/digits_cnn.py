"""Convolutional network with BatchNorm on scikit-learn's digits, minibatches: healthy over a wide range of settings.

In: batch size, channels, dropout and a seed for start and data order. Out: a ``Training`` on 1,437 images, with the
other 360 as ``eval_batches``.
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from stabletune.trial.training import Training

Batch = tuple[torch.Tensor, torch.Tensor]
N_TRAIN = 1437


def loss_fn(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Return the mean cross-entropy over the ten digits."""
    images, labels = batch
    return torch.nn.functional.cross_entropy(model(images), labels)


def build(
    seed: int, device: torch.device, *, batch_size: int = 64, channels: int = 16, dropout: float = 0.0
) -> Training:
    """Build two convolutions and a linear layer; which images train is the same for every seed.

    Args:
        seed: draws the start and the order of the data.
        device: where the images live.
        batch_size: images per step, at most 1,437.
        channels: of the first convolution; the second has twice as many.
        dropout: probability before the linear layer.
    """
    torch.manual_seed(seed)
    digits = load_digits()
    shuffled = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(0))
    images = torch.tensor(digits.images / 16.0).float().unsqueeze(1)[shuffled].to(device)
    labels = torch.tensor(digits.target)[shuffled].to(device)
    train = TensorDataset(images[:N_TRAIN], labels[:N_TRAIN])
    generator = torch.Generator().manual_seed(seed)
    sampler = BatchSampler(RandomSampler(train, generator=generator), batch_size, drop_last=True)
    return Training(
        model=_network(channels, dropout),
        loss_fn=loss_fn,
        batches=DataLoader(train, sampler=sampler, batch_size=None, generator=generator),
        eval_batches=[(images[N_TRAIN:], labels[N_TRAIN:])],
    )


def _network(channels: int, dropout: float) -> torch.nn.Module:
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, channels, 3, padding=1),
        torch.nn.BatchNorm2d(channels),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(channels, 2 * channels, 3, padding=1),
        torch.nn.BatchNorm2d(2 * channels),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Dropout(dropout),
        torch.nn.Linear(2 * channels * 4, 10),
    )
