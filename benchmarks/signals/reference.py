"""The sharpness ratio by ARPACK in float64: written apart from the package, so that neither vouches for itself."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.signals.models import Batch, Task

TOLERANCE = 1e-8


@dataclasses.dataclass(frozen=True)
class Point:
    """A model during training, the batch, and the roots of W = ½ η (1-b1) / ((1+b1) (1-b1^t)) / (√v̂+ε), flat."""

    model: torch.nn.Module
    criterion: torch.nn.Module
    batch: Batch
    roots: list[Tensor]


def point(task: Task, optimizer: torch.optim.AdamW) -> Point:
    """Read W^½ off the optimizer in float64."""
    roots = []
    for group in optimizer.param_groups:
        beta1, beta2 = group["betas"]
        for p in group["params"]:
            t = float(optimizer.state[p]["step"])
            v_hat = optimizer.state[p]["exp_avg_sq"].double() / (1 - beta2**t)
            edge = (1 - beta1) / ((1 + beta1) * (1 - beta1**t))
            roots.append((0.5 * group["lr"] * edge / (v_hat.sqrt() + group["eps"])).sqrt())
    return Point(task.model, task.criterion, task.probe, roots)


class Reference:
    """λ_max of W^½ H W^½ in double precision; each call starts where the last one ended."""

    def __init__(self, tolerance: float = TOLERANCE) -> None:
        self._tolerance = tolerance
        self._start: np.ndarray | None = None

    def __call__(self, at: Point) -> float:
        model = copy.deepcopy(at.model).double()
        params = list(model.parameters())
        inputs, targets = (part.double() if part.is_floating_point() else part for part in at.batch)
        with sdpa_kernel(SDPBackend.MATH):
            loss = at.criterion(model(inputs), targets)
        gradients = torch.autograd.grad(loss, params, create_graph=True)
        root = torch.cat([r.reshape(-1) for r in at.roots])

        def product(x: np.ndarray) -> np.ndarray:
            pieces = torch.split(root * torch.from_numpy(x.reshape(-1).copy()), [p.numel() for p in params])
            directions = [v.reshape(p.shape) for v, p in zip(pieces, params, strict=True)]
            found = torch.autograd.grad(gradients, params, directions, retain_graph=True, materialize_grads=True)
            return (root * torch.cat([h.reshape(-1) for h in found])).numpy()

        if self._start is None:
            # a random part beside the gradient, which may be orthogonal to the top direction
            random = torch.randn(root.numel(), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
            scaled = root * torch.cat([g.detach().reshape(-1) for g in gradients])
            self._start = (scaled / scaled.norm() + random / random.norm()).numpy()
        operator = LinearOperator((root.numel(),) * 2, matvec=product, dtype=np.float64)
        values, vectors = eigsh(operator, k=1, which="LA", tol=self._tolerance, v0=self._start)
        noise = np.random.default_rng(0).standard_normal(root.numel())
        self._start = vectors[:, 0] + 0.1 * noise / np.linalg.norm(noise)
        return float(values[0])
