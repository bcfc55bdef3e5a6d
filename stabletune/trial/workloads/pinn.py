"""Physics-informed network for u'' = f on [-1, 1], full batch: a loss that itself differentiates twice.

In: frequency, width, depth and a seed for the start. Out: a ``Training`` with the error against the known solution
as ``eval_fn``.
"""

from __future__ import annotations

import math

import torch

from stabletune.trial.training import Training

N_POINTS = 128


class Residual:
    """The loss of u'' = -k^2 sin(k x), u(-1) = u(1) = 0, whose solution is u = sin(k x) with k = frequency pi."""

    def __init__(self, frequency: int) -> None:
        self.k = frequency * math.pi

    def __call__(self, model: torch.nn.Module, batch: torch.Tensor) -> torch.Tensor:
        """Return the mean of (u''/k^2 + sin(k x))^2 at the points plus the mean of u^2 at both ends."""
        x = batch.detach().requires_grad_()
        u = model(x)
        (slope,) = torch.autograd.grad(u.sum(), x, create_graph=True)
        (bend,) = torch.autograd.grad(slope.sum(), x, create_graph=True)
        inside: torch.Tensor = (bend / self.k**2 + torch.sin(self.k * x)).square().mean()
        ends: torch.Tensor = model(torch.tensor([[-1.0], [1.0]], device=x.device, dtype=x.dtype)).square().mean()
        return inside + ends


def build(seed: int, device: torch.device, *, frequency: int = 2, width: int = 32, depth: int = 2) -> Training:
    """Build a tanh network of ``depth`` hidden layers on 128 evenly spaced points.

    Args:
        seed: draws the start.
        device: where the points live.
        frequency: half-waves of the solution per unit of x; higher is harder.
        width: units of a hidden layer.
        depth: the number of hidden layers.
    """
    torch.manual_seed(seed)
    layers: list[torch.nn.Module] = []
    for n_inputs in [1] + [width] * (depth - 1):
        layers += [torch.nn.Linear(n_inputs, width), torch.nn.Tanh()]
    model = torch.nn.Sequential(*layers, torch.nn.Linear(width, 1))
    residual = Residual(frequency)
    points = torch.linspace(-1.0, 1.0, N_POINTS, device=device).unsqueeze(1)

    def relative_error(model: torch.nn.Module) -> float:
        solution = torch.sin(residual.k * points)
        with torch.no_grad():
            return float((model(points) - solution).norm() / solution.norm())

    return Training(model=model, loss_fn=residual, batches=[points], eval_fn=relative_error)
