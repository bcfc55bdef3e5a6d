"""Where an optimizer itself diverges: its real steps as a linear map while v and its step count are put back.

The parameters and the gradients are of size 1e-100, so that nothing is left of g² in v: a step is then linear in the
parameters and the running average of gradients, and the spectral radius of that map decides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

SIZE = 1e-100
Make = Callable[[list[torch.nn.Parameter], float], torch.optim.Optimizer]


class FrozenIteration:
    """½ θᵀ H θ under an optimizer whose state, but for the running average, is that of step t at each step.

    ``make`` builds the optimizer from the parameters and a factor on every learning rate; ``sizes`` splits θ into them.
    Several θ, the columns of a matrix, are moved at once.
    """

    def __init__(self, make: Make, hessian: Tensor, sizes: Sequence[int], *, t: int) -> None:
        self._make, self._hessian, self._sizes, self._t = make, hessian, list(sizes), t

    def after_step(self, factor: float, theta: Tensor, average: Tensor) -> tuple[torch.optim.Optimizer, Tensor]:
        """The optimizer after its real step number t from θ and the running average, and both as it left them."""
        params = [torch.nn.Parameter(start.clone()) for start in theta.split(self._sizes)]
        optimizer = self._make(params, factor)
        draw = torch.Generator().manual_seed(1)
        for param, m in zip(params, average.split(self._sizes), strict=True):
            v = (0.1 + 4 * torch.rand(len(param), 1, generator=draw, dtype=torch.float64)).expand_as(param).clone()
            group = next(g for g in optimizer.param_groups if any(p is param for p in g["params"]))
            optimizer.state[param] = state_before(optimizer, group, v, t=self._t)
            if average_key(optimizer, group) is not None:
                optimizer.state[param][average_key(optimizer, group)] = m.clone()
        self.loss(params).backward()
        optimizer.step()
        return optimizer, torch.cat([*(p.detach() for p in params), *averages_of(optimizer)])

    def loss(self, params: Sequence[Tensor]) -> Tensor:
        theta = torch.cat(list(params))
        return 0.5 * (theta * (self._hessian @ theta)).sum()

    def at_rest(self, factor: float) -> torch.optim.Optimizer:
        """The optimizer with the state that it has after each of these steps."""
        zero = torch.zeros(sum(self._sizes), 1, dtype=torch.float64)
        return self.after_step(factor, zero, zero)[0]

    def growth(self, factor: float) -> float:
        """The spectral radius of one step."""
        n = sum(self._sizes)
        units = SIZE * torch.eye(2 * n, dtype=torch.float64)
        after = self.after_step(factor, units[:n], units[n:])[1]
        return float(torch.linalg.eigvals(after / SIZE).abs().max())

    def edge(self) -> float:
        """The factor on the learning rates past which the iteration diverges, to 1e-5."""
        low, high = -20.0, 20.0
        while high - low > 1e-5:
            middle = 0.5 * (low + high)
            low, high = (low, middle) if self.growth(math.exp(middle)) > 1 else (middle, high)
        return math.exp(low)


def average_key(optimizer: torch.optim.Optimizer, group: dict[str, Any]) -> str | None:
    """Where the state holds the running average, if there is one."""
    if isinstance(optimizer, (torch.optim.RMSprop, torch.optim.Adagrad)):
        return "momentum_buffer" if group.get("momentum") else None
    return "exp_avg"


def averages_of(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    keyed = [(p, average_key(optimizer, group)) for group in optimizer.param_groups for p in group["params"]]
    return [torch.zeros_like(p) if key is None else optimizer.state[p][key] for p, key in keyed]


def state_before(optimizer: torch.optim.Optimizer, group: dict[str, Any], v: Tensor, *, t: int) -> dict[str, Any]:
    """What the state holds before the step that is to be number t."""
    counted = {"step": torch.tensor(t - 1.0)}
    if isinstance(optimizer, torch.optim.Adagrad):
        return counted | {"sum": v}
    if isinstance(optimizer, torch.optim.RMSprop):
        return counted | {"square_avg": v, "grad_avg": 0.6 * v.sqrt()}
    if isinstance(optimizer, torch.optim.NAdam):
        steps = torch.arange(1, t, dtype=torch.float64)
        mus = group["betas"][0] * (1 - 0.5 * 0.96 ** (steps * group["momentum_decay"]))
        counted["mu_product"] = mus.prod()
    moments = counted | {"exp_avg_sq": v, "max_exp_avg_sq": 1.5 * v}
    if group.get("second_moment_reset") is None:
        return moments
    # gradients of size 1e-100 are stale: the step itself is the third in a row, which resets
    return moments | {"exp_avg_sq_stale_steps": 2}
