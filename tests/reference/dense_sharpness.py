"""The slow twin of the sharpness ratio: the whole Hessian, every weight from the formula, a dense eigensolver."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from tests.reference.optimizer_steps import alternating_step, decays


def dense_hessian(closure: Callable[[], Tensor], params: Sequence[Tensor]) -> Tensor:
    with sdpa_kernel(SDPBackend.MATH):
        loss = closure()
    gradients = torch.autograd.grad(loss, params, create_graph=True, allow_unused=True)
    rows = []
    for param, gradient in zip(params, gradients, strict=True):
        for index in range(param.numel()):
            entry = None if gradient is None or not gradient.requires_grad else gradient.reshape(-1)[index]
            row = [None] * len(params)
            if entry is not None:
                row = list(torch.autograd.grad(entry, params, retain_graph=True, allow_unused=True))
            filled = [torch.zeros_like(p) if r is None else r for r, p in zip(row, params, strict=True)]
            rows.append(torch.cat([piece.reshape(-1) for piece in filled]))
    return torch.stack(rows).double()


def dense_gradient(closure: Callable[[], Tensor], params: Sequence[Tensor]) -> Tensor:
    found = torch.autograd.grad(closure(), params, allow_unused=True)
    pieces = [torch.zeros_like(p) if g is None else g for g, p in zip(found, params, strict=True)]
    return torch.cat([piece.reshape(-1) for piece in pieces]).double()


def weights(optimizer: torch.optim.Optimizer, clip: Callable[[Tensor], float] = lambda p: 1.0) -> Tensor:
    """Twice the share of the way to the edge per unit of curvature: 2 c step / (2 - decoupled decay)."""
    pieces = []
    for group in optimizer.param_groups:
        _, shrinkage = decays(optimizer, group)
        for p in group["params"]:
            edge = 2 - getattr(optimizer, "lr_factor", lambda p: 1.0)(p) * shrinkage
            pieces.append((2 * clip(p) * alternating_step(optimizer, group, p) / edge).reshape(-1))
    return torch.cat(pieces)


def l2_of(optimizer: torch.optim.Optimizer) -> Tensor:
    """The coupled decay of every entry."""
    pairs = [(p, decays(optimizer, group)[0]) for group in optimizer.param_groups for p in group["params"]]
    return torch.cat([torch.full((p.numel(),), l2, dtype=torch.float64) for p, l2 in pairs])


def dense_spectrum(hessian: Tensor, weight: Tensor) -> Tensor:
    """Half the eigenvalues of W^½ H W^½, ascending."""
    root = weight.sqrt()
    matrix = root[:, None] * hessian * root[None, :]
    return 0.5 * torch.linalg.eigvalsh(0.5 * (matrix + matrix.T))


def dense_sharpness(optimizer: torch.optim.Optimizer, closure: Callable[[], Tensor]) -> float:
    params = [p for group in optimizer.param_groups for p in group["params"]]
    hessian = dense_hessian(closure, params) + torch.diag(l2_of(optimizer))
    return float(dense_spectrum(hessian, weights(optimizer))[-1])
