"""A small tanh network on scikit-learn's diabetes data, trained full batch."""

import torch
from sklearn.datasets import load_diabetes

from stabletune import Training


def build(seed: int, device: torch.device, *, width: int = 64) -> Training:
    # stabletune has seeded torch, numpy and random with `seed`: the start differs from seed to seed.
    data, target = load_diabetes(return_X_y=True)
    x = torch.tensor((data - data.mean(0)) / data.std(0), dtype=torch.float32)
    y = torch.tensor((target - target.mean()) / target.std(), dtype=torch.float32).unsqueeze(1)
    model = torch.nn.Sequential(
        torch.nn.Linear(x.shape[1], width),
        torch.nn.Tanh(),
        torch.nn.Linear(width, width),
        torch.nn.Tanh(),
        torch.nn.Linear(width, 1),
    )
    return Training(model=model, loss_fn=mean_squared_error, batches=[(x, y)])


def mean_squared_error(model: torch.nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    x, y = batch
    return torch.nn.functional.mse_loss(model(x), y)
