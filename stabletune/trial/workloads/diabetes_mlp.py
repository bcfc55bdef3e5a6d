"""Tanh network on scikit-learn's diabetes data, full batch: spikes at AdamW's defaults within 2,500 steps.

In: width, depth and a seed for the start. Out: a ``Training`` on all 442 rows, inputs and target standardized.
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_diabetes

from stabletune.trial.training import Training

Batch = tuple[torch.Tensor, torch.Tensor]


def loss_fn(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Return the mean squared error in units of the target's variance."""
    inputs, targets = batch
    return torch.nn.functional.mse_loss(model(inputs), targets)


def build(seed: int, device: torch.device, *, width: int = 64, depth: int = 2) -> Training:
    """Build a tanh network with ``depth`` hidden layers of ``width`` units on 10 inputs."""
    torch.manual_seed(seed)
    data, target = load_diabetes(return_X_y=True)
    inputs = _standardized(torch.tensor(data))
    targets = _standardized(torch.tensor(target).unsqueeze(1))
    layers: list[torch.nn.Module] = []
    for n_inputs in [inputs.shape[1]] + [width] * (depth - 1):
        layers += [torch.nn.Linear(n_inputs, width), torch.nn.Tanh()]
    model = torch.nn.Sequential(*layers, torch.nn.Linear(width, 1))
    return Training(model=model, loss_fn=loss_fn, batches=[(inputs.to(device), targets.to(device))])


def _standardized(columns: torch.Tensor) -> torch.Tensor:
    centered = columns - columns.mean(dim=0)
    return (centered / centered.std(dim=0, correction=0)).float()
