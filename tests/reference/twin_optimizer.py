"""The slow twin of a shadow: a second optimizer with the other beta2, on copies reset to the run before each step."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class TwinOptimizer:
    """Feeds ``make(copies)`` what the run's optimizer is fed; its state is what another beta2 would have left."""

    def __init__(self, optimizer: torch.optim.Optimizer, make: Callable[[list[dict[str, Any]]], Any]) -> None:
        self.params = [p for group in optimizer.param_groups for p in group["params"]]
        self.copies = [p.detach().clone().requires_grad_(p.requires_grad) for p in self.params]
        found = dict(zip(self.params, self.copies, strict=True))
        groups = [
            {**{k: v for k, v in group.items() if k != "betas"}, "params": [found[p] for p in group["params"]]}
            for group in optimizer.param_groups
        ]
        self.optimizer = make(groups)
        if optimizer.state:
            betas = [group["betas"] for group in self.optimizer.param_groups]
            self.optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
            for group, kept in zip(self.optimizer.param_groups, betas, strict=True):
                group["betas"] = kept

    def step_before(self) -> None:
        """Step with the run's parameters and gradients, as they are right before the run's own step."""
        for p, twin in zip(self.params, self.copies, strict=True):
            twin.data.copy_(p.data)
            twin.grad = None if p.grad is None else p.grad.clone()
        self.optimizer.step()

    def state(self, param: Tensor, name: str) -> Tensor:
        """One entry of the state that belongs to the run's ``param``."""
        index = next(i for i, p in enumerate(self.params) if p is param)
        found: Tensor = self.optimizer.state[self.copies[index]][name]
        return found
