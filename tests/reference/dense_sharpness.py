"""The slow twin of the sharpness ratio: the whole Hessian, every weight from the formula, a dense eigensolver."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel


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
    """W of science.md section 1, without the one half."""
    pieces = []
    for group in optimizer.param_groups:
        beta1, beta2 = group["betas"]
        for p in group["params"]:
            state = optimizer.state[p]
            t = float(state["step"])
            v = state["max_exp_avg_sq"] if group["amsgrad"] else state["exp_avg_sq"]
            root = (v.double() / (1 - beta2**t)).sqrt()
            scale = clip(p) * group["lr"] * (1 - beta1) / ((1 + beta1) * (1 - beta1**t))
            pieces.append((scale / (root + group["eps"])).reshape(-1))
    return torch.cat(pieces)


def dense_spectrum(hessian: Tensor, weight: Tensor) -> Tensor:
    """Half the eigenvalues of W^½ H W^½, ascending."""
    root = weight.sqrt()
    matrix = root[:, None] * hessian * root[None, :]
    return 0.5 * torch.linalg.eigvalsh(0.5 * (matrix + matrix.T))


def dense_sharpness(optimizer: torch.optim.Optimizer, closure: Callable[[], Tensor]) -> float:
    params = [p for group in optimizer.param_groups for p in group["params"]]
    return float(dense_spectrum(dense_hessian(closure, params), weights(optimizer))[-1])
