"""A small seeded net, its loss and a plain training loop, shared by the optimizer's tests."""

from __future__ import annotations

import torch

GENERATOR_SEED = 3
INPUTS = torch.randn(40, 5, generator=torch.Generator().manual_seed(GENERATOR_SEED))


def net(seed: int = 0) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(5, 9), torch.nn.Tanh(), torch.nn.Linear(9, 2))
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * 0.5)
    return model


def losses_of(model: torch.nn.Module) -> torch.Tensor:
    return (model(INPUTS) - INPUTS[:, :2].sin()).square().mean()


def train(model: torch.nn.Module, optimizer: torch.optim.Optimizer, *, steps: int, clip: float | None = None) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        losses_of(model).backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()


def parameters_equal(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    return all(torch.equal(p, q) for p, q in zip(one.parameters(), other.parameters(), strict=True))
