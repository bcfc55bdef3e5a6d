"""Small problems and trained optimizers that the signals are tested on."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from stabletune.signals.curvature.hvp import LossGraph
from stabletune.signals.curvature.preconditioner import PreconditionedHessian
from stabletune.signals.optimizer_state.adaptive_tensor import AdaptiveTensor
from stabletune.signals.optimizer_state.reading import read_tensors

Problem = tuple[torch.nn.Module, Callable[[], Tensor]]


class Quadratic(torch.nn.Module):
    """L = ½ θᵀ H θ."""

    def __init__(self, hessian: Tensor, start: Tensor) -> None:
        super().__init__()
        self.theta = torch.nn.Parameter(start.clone())
        self.hessian = hessian

    def loss(self) -> Tensor:
        return 0.5 * self.theta @ self.hessian @ self.theta


def tanh_regression(seed: int = 0, width: int = 50) -> Problem:
    generator = torch.Generator().manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(1, width), torch.nn.Tanh(), torch.nn.Linear(width, 1))
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator))
        model[2].weight /= width**0.5
        model[2].bias.zero_()
    x = torch.linspace(-math.pi, math.pi, 200)[:, None]
    y = torch.sin(x) + torch.sin(4 * x)
    return model, lambda: (model(x) - y).square().mean()


def train(optimizer: torch.optim.Optimizer, closure: Callable[[], Tensor], steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        closure().backward()
        optimizer.step()


def tensor_with(**changes: Any) -> AdaptiveTensor:
    v = changes.pop("v", torch.ones(3, dtype=torch.float64))
    defaults: dict[str, Any] = {
        "param": torch.zeros_like(v),
        "second_moment": v,
        "denominator_moment": v,
        "correction": 1 - 0.99**10,
        "beta2": 0.99,
        "entry_share": 0.01,
        "eps": 1e-8,
        "n_steps": 10,
        "step_size": 0.1,
        "l2": 0.0,
        "shrinkage": 0.0,
        "clip_factor": 1.0,
    }
    return AdaptiveTensor(**{**defaults, **changes})


def operator_of(optimizer: torch.optim.Optimizer, closure: Callable[[], Tensor]) -> PreconditionedHessian:
    tensors = read_tensors(optimizer)
    graph = LossGraph(closure, [tensor.param for tensor in tensors])
    by_param = {id(tensor.param): tensor for tensor in tensors}
    return PreconditionedHessian(graph, [by_param[id(p)] for p in graph.params])
