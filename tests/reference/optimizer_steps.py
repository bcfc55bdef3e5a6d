"""The slow twin of the readers: how each optimizer moves θ under a gradient that alternates between g and -g.

Written from the published update rules, one parameter at a time, with plain numbers and loops for everything but √v.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def alternating(decay: float, share: float) -> float:
    """The amplitude that x ← decay x + share g settles at for g = 1, -1, 1, ..."""
    x, sign = 0.0, 1.0
    for _ in range(4000):
        x = decay * x + share * sign
        sign = -sign
    return abs(x)


def alternating_step(optimizer: torch.optim.Optimizer, group: dict[str, Any], p: Tensor) -> Tensor:
    """The size of the step per unit of g, entry by entry, unclipped and without decay."""
    state, lr, eps = optimizer.state[p], float(group["lr"]), float(group["eps"])
    t = float(state["step"])
    if isinstance(optimizer, torch.optim.Adagrad):
        return lr / (1 + (t - 1) * group["lr_decay"]) / (state["sum"].double().sqrt() + eps)
    if isinstance(optimizer, torch.optim.RMSprop):
        v = state["square_avg"].double()
        if group["centered"]:
            v = v - state["grad_avg"].double() ** 2
        return lr * alternating(group["momentum"], 1.0) / (v.sqrt() + eps)
    beta1, beta2 = group["betas"]
    v = (state["max_exp_avg_sq"] if group.get("amsgrad") else state["exp_avg_sq"]).double()
    root = (v / (1 - beta2**t)).sqrt()
    m = alternating(beta1, 1 - beta1)
    if isinstance(optimizer, torch.optim.NAdam):
        mus = [beta1 * (1 - 0.5 * 0.96 ** (s * group["momentum_decay"])) for s in range(1, int(t) + 2)]
        product = 1.0
        for mu in mus[:-1]:
            product *= mu
        return lr * ((1 - mus[-2]) / (1 - product) + mus[-1] * m / (1 - product * mus[-1])) / (root + eps)
    size = lr * m / (1 - beta1**t)
    if isinstance(optimizer, torch.optim.RAdam):
        rho = 2 / (1 - beta2) - 1
        rho_t = rho - 2 * t * beta2**t / (1 - beta2**t)
        if rho_t <= 5:
            return torch.full_like(root, size)
        r = ((rho_t - 4) * (rho_t - 2) * rho / ((rho - 4) * (rho - 2) * rho_t)) ** 0.5
        return size * r * (1 - beta2**t) ** 0.5 / (v.sqrt() + eps)
    return size / (root + eps)


def decays(optimizer: torch.optim.Optimizer, group: dict[str, Any]) -> tuple[float, float]:
    """(l2, share of θ taken off per step): the two ways a weight decay can act."""
    if group.get("decoupled_weight_decay"):
        return 0.0, group["lr"] * group["weight_decay"]
    return group["weight_decay"], 0.0
