"""Fifty tanh units on sin x + sin 4x, full batch: the science's reference for late spikes.

In: width, precision and a seed for the start. Out: a ``Training`` on 200 evenly spaced points of [-pi, pi].
"""

from __future__ import annotations

import math
from typing import Literal

import torch

from stabletune.trial.training import Training

Batch = tuple[torch.Tensor, torch.Tensor]


class TanhUnits(torch.nn.Module):
    """a tanh(w x + b) + c with w, b ~ N(0, 1), a ~ N(0, 1) / sqrt(width), c = 0."""

    def __init__(self, width: int, generator: torch.Generator, dtype: torch.dtype) -> None:
        super().__init__()
        w, b, a = torch.randn(3, width, generator=generator, dtype=torch.float64).to(dtype)
        self.w = torch.nn.Parameter(w.clone())
        self.b = torch.nn.Parameter(b.clone())
        self.a = torch.nn.Parameter(a / math.sqrt(width))
        self.c = torch.nn.Parameter(torch.zeros(1, dtype=dtype))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map points of shape (n,) to values of shape (n,)."""
        return torch.tanh(x.unsqueeze(1) * self.w + self.b) @ self.a + self.c


def loss_fn(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Return the mean squared error over the points."""
    x, y = batch
    return torch.nn.functional.mse_loss(model(x), y)


def build(
    seed: int, device: torch.device, *, width: int = 50, dtype: Literal["float32", "float64"] = "float32"
) -> Training:
    """Build the regression; at lr 0.02 and beta2 0.999 the loss first spikes near step 700 of 5,000.

    Args:
        seed: draws w, b and a.
        device: where the points live.
        width: the number of tanh units.
        dtype: of the parameters and of the points.
    """
    kind = torch.float64 if dtype == "float64" else torch.float32
    x = torch.linspace(-math.pi, math.pi, 200, dtype=kind, device=device)
    model = TanhUnits(width, torch.Generator().manual_seed(seed), kind)
    return Training(model=model, loss_fn=loss_fn, batches=[(x, torch.sin(x) + torch.sin(4 * x))])
