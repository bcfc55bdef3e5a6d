"""Tanh autoencoder on scikit-learn's digits, full batch: rests at the edge of stability and stays healthy.

In: code size, width and a seed for the start. Out: a ``Training`` on all 1,797 images. It is the negative control: a
rule that stops whatever exceeds a sharpness ratio of 1 kills this good run.
"""

from __future__ import annotations

import itertools

import torch
from sklearn.datasets import load_digits

from stabletune.trial.training import Training


def loss_fn(model: torch.nn.Module, batch: torch.Tensor) -> torch.Tensor:
    """Return the mean squared error per pixel; pixels lie in [0, 1]."""
    return torch.nn.functional.mse_loss(model(batch), batch)


def build(seed: int, device: torch.device, *, code: int = 8, width: int = 32) -> Training:
    """Build the autoencoder 64 - width - code - width - 64 with tanh between the layers."""
    torch.manual_seed(seed)
    images = torch.tensor(load_digits().data / 16.0).float()
    sizes = [64, width, code, width, 64]
    layers: list[torch.nn.Module] = []
    for n_inputs, n_outputs in itertools.pairwise(sizes):
        layers += [torch.nn.Linear(n_inputs, n_outputs), torch.nn.Tanh()]
    return Training(model=torch.nn.Sequential(*layers[:-1]), loss_fn=loss_fn, batches=[images.to(device)])
