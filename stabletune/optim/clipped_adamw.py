"""One AdamW step with the mitigations that act on single tensors, over lists of tensors.

In: the gradients in ``p.grad`` and one parameter group. Out: parameters and state changed in place, and the factor by
which each tensor's learning rate was shrunk. Same order of operations as torch's foreach AdamW, so that the bits agree
as long as no rule bites.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import torch
from torch import Tensor

from stabletune.optim.second_moment_average import second_moment_average
from stabletune.optim.second_moment_clip import clip_by_second_moment
from stabletune.optim.second_moment_reset import AGE, reset_stale_memories

BY_TENSOR = ("update_clip", "second_moment_clip", "second_moment_reset", "beta2_exponent")  # torch's step has none
State = MutableMapping[Tensor, dict[str, Any]]


def update_clip_factors(grads: list[Tensor], roots: list[Tensor], *, limit: float, eps: float) -> list[Tensor]:
    """Shrink each tensor's step by how far its update leaves unit size.

    c = 1 / max(1, rms / d),   rms = √mean(g² / max(v̂, ε²)),   v̂ already holding this step's g

    Args:
        grads: gradients that entered the moments.
        roots: √v̂ of each tensor, same shapes.
        limit: d > 0; 1 in the source.
        eps: ε of the optimizer.

    Returns:
        One 0-dimensional float64 tensor each, in (0, 1]; left on the device, so that nothing is synchronised.

    Cost: three elementwise passes and one temporary.
    Source: StableAdamW, arXiv:2304.13013, section 3.2.
    """
    floors = torch._foreach_clamp_min(roots, max(eps, torch.finfo(roots[0].dtype).tiny))
    norms = torch._foreach_norm(torch._foreach_div(grads, floors))
    squares = [norm.double().square() / max(1, grad.numel()) for norm, grad in zip(norms, grads, strict=True)]
    return [1 / (square.sqrt() / limit).clamp_min(1.0) for square in squares]


def clipped_adamw_step(group: dict[str, Any], state: State) -> dict[Tensor, Tensor]:
    """Take one AdamW step for one group with all mitigations but ``max_grad_norm``.

    m ← b1 m + (1-b1) g,  v ← b v + s g²,  θ ← θ - c η (λ θ + m̂ / (√v̂ + ε)),  v̂ = v / (1-b2^t)

    with g clipped by ``second_moment_clip`` before both moments, b and s of ``second_moment_average`` (b2 and 1-b2
    without a schedule or a reset) and c of ``update_clip_factors``; the decay uses the same shrunk learning rate. With
    amsgrad, v̂ is the running maximum, for c too, and a reset lowers it never.

    Args:
        group: a parameter group with torch's AdamW keys and those of the mitigations (None is off).
        state: the optimizer's state, filled on a parameter's first step.

    Returns:
        The factors c by parameter; empty if ``update_clip`` is off.
    """
    params = [p for p in group["params"] if p.grad is not None]
    if not params:
        return {}
    states = [_state_of(p, state, group) for p in params]
    grads = _gradients(params, states, group)
    if group["second_moment_reset"] is not None:
        beta2 = float(group["betas"][1])
        reset_stale_memories(grads, states, limit=float(group["second_moment_reset"]), beta2=beta2)
    roots = _advance_moments(grads, states, group)
    factors: list[Tensor] = []
    if group["update_clip"] is not None:
        factors = update_clip_factors(grads, roots, limit=group["update_clip"], eps=group["eps"])
    _decay(params, factors, group)
    torch._foreach_add_(roots, group["eps"])
    if factors:
        torch._foreach_div_(roots, factors)
    beta1 = float(group["betas"][0])
    sizes = [(float(group["lr"]) / (1 - beta1 ** float(s["step"]))) * -1 for s in states]
    torch._foreach_addcdiv_(params, [s["exp_avg"] for s in states], roots, sizes)
    return dict(zip(params, factors, strict=True)) if factors else {}


def _advance_moments(grads: list[Tensor], states: list[dict[str, Any]], group: dict[str, Any]) -> list[Tensor]:
    """Update both moments and the step count in place; return √v̂."""
    beta1, beta2 = (float(beta) for beta in group["betas"])
    torch._foreach_lerp_([s["exp_avg"] for s in states], grads, 1 - beta1)
    second_moments = [s["exp_avg_sq"] for s in states]
    decays, shares = zip(*(_next_average(s, group) for s in states), strict=True)
    torch._foreach_mul_(second_moments, decays)
    torch._foreach_addcmul_(second_moments, grads, grads, shares)
    if group["amsgrad"]:
        maxima = [s["max_exp_avg_sq"] for s in states]
        torch._foreach_maximum_(maxima, second_moments)
        second_moments = maxima
    torch._foreach_add_([s["step"] for s in states], 1)
    roots = list(torch._foreach_sqrt(second_moments))
    torch._foreach_div_(roots, [(1 - beta2 ** float(s["step"])) ** 0.5 for s in states])
    return roots


def _next_average(entry: dict[str, Any], group: dict[str, Any]) -> tuple[float, float]:
    """Decay and share of v for the step about to be counted; the age of a reset v grows with it."""
    if AGE in entry:
        entry[AGE] += 1
    return second_moment_average(
        int(entry["step"]) + 1,
        beta2=float(group["betas"][1]),
        exponent=group["beta2_exponent"],
        age=entry.get(AGE) if group["second_moment_reset"] is not None else None,
    )


def _decay(params: list[Tensor], factors: list[Tensor], group: dict[str, Any]) -> None:
    lr, decay = float(group["lr"]), float(group["weight_decay"])
    if decay == 0:
        return
    if factors:
        torch._foreach_mul_(params, [1 - lr * decay * factor for factor in factors])
    else:
        torch._foreach_mul_(params, 1 - lr * decay)


def _gradients(params: list[Tensor], states: list[dict[str, Any]], group: dict[str, Any]) -> list[Tensor]:
    grads = [p.grad for p in params if p.grad is not None]
    if group["maximize"]:
        grads = list(torch._foreach_neg(grads))
    limit = group["second_moment_clip"]
    if limit is None:
        return grads
    beta2 = float(group["betas"][1])
    return [
        clip_by_second_moment(grad, s["exp_avg_sq"], limit=limit, beta2=beta2, n_steps=int(s["step"]))
        for grad, s in zip(grads, states, strict=True)
    ]


def _state_of(param: Tensor, state: State, group: dict[str, Any]) -> dict[str, Any]:
    if torch.is_complex(param) or (param.grad is not None and param.grad.is_sparse):
        kind = "complex parameters" if torch.is_complex(param) else "sparse gradients"
        raise ValueError(
            f"InstrumentedAdamW: {', '.join(BY_TENSOR)} need real, dense gradients, but got {kind}. "
            "Leave them at None for this parameter group."
        )
    entry = state[param]
    if not entry:
        entry["step"] = torch.tensor(0.0, dtype=torch.promote_types(torch.float32, torch.get_default_dtype()))
        for name in ("exp_avg", "exp_avg_sq", *(("max_exp_avg_sq",) if group["amsgrad"] else ())):
            entry[name] = torch.zeros_like(param, memory_format=torch.preserve_format)
    return entry
