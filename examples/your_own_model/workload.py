"""Copy this file to train your own model: a residual network on minibatches, with everything a workload may say."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import make_friedman1
from torch.utils.data import DataLoader, TensorDataset

from stabletune import Training

Batch = tuple[torch.Tensor, torch.Tensor]


class ResidualNetwork(torch.nn.Module):
    def __init__(self, n_inputs: int, width: int, dropout: float) -> None:
        super().__init__()
        self.inputs = torch.nn.Linear(n_inputs, width)
        self.blocks = torch.nn.ModuleList(
            torch.nn.Sequential(
                torch.nn.LayerNorm(width),
                torch.nn.Linear(width, width),
                torch.nn.GELU(),
                torch.nn.Dropout(dropout),
                torch.nn.Linear(width, width),
            )
            for _ in range(2)
        )
        self.output = torch.nn.Linear(width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.inputs(x)
        for block in self.blocks:
            x = x + block(x)
        return self.output(x).squeeze(-1)


def loss_fn(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """The mean loss of one batch: a scalar tensor with a gradient."""
    x, y = batch
    return torch.nn.functional.mse_loss(model(x), y)


def load_data() -> tuple[TensorDataset, TensorDataset]:
    """Your data. Split it in the same way for every seed, or held-out values cannot be compared."""
    x, y = make_friedman1(n_samples=2000, noise=0.5, random_state=0)
    y = (y - y.mean()) / y.std()
    x_all, y_all = torch.from_numpy(x.astype(np.float32)), torch.from_numpy(y.astype(np.float32))
    return TensorDataset(x_all[:1600], y_all[:1600]), TensorDataset(x_all[1600:], y_all[1600:])


def decayed_apart(model: torch.nn.Module) -> list[dict]:
    """Weight decay for matrices only. A group without `weight_decay` takes the trial's, and so with lr."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    return [{"params": matrices}, {"params": others, "weight_decay": 0.0, "lr_scale": 1.0}]


def build(seed: int, device: torch.device, *, width: int = 64, batch_size: int = 64, dropout: float = 0.0) -> Training:
    # torch, numpy and random have been seeded with `seed`; the loader gets its own generator, so that the order of
    # the data does not depend on how many random numbers the model drew.
    train, held_out = load_data()
    order = torch.Generator().manual_seed(seed)
    model = ResidualNetwork(n_inputs=10, width=width, dropout=dropout)

    def held_out_error(model: torch.nn.Module) -> float:
        # Called once at the end, in eval mode; smaller is better. Here: root mean squared error.
        x, y = held_out.tensors
        with torch.no_grad():
            return float(torch.sqrt(loss_fn(model, (x.to(device), y.to(device)))))

    return Training(
        model=model,
        loss_fn=loss_fn,
        batches=DataLoader(train, batch_size=batch_size, shuffle=True, drop_last=True, generator=order),
        eval_fn=held_out_error,
        param_groups=decayed_apart(model),
    )
