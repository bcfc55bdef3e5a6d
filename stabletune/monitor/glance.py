"""What can be read between two measurements from the optimizer's state and the gradients it has just used.

In: the optimizer after its step. Out: some fields of a ``Measurement``, without a loss, a graph or a product.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from stabletune.hyperparameters import MITIGATIONS
from stabletune.signals.optimizer_state.adaptive_tensor import AdaptiveTensor
from stabletune.signals.optimizer_state.reading import is_maximizing, read_tensors
from stabletune.signals.oscillation import oscillation

_ROUNDING = 1.01


def glance(optimizer: torch.optim.Optimizer, noted_norm: float | None = None) -> dict[str, float]:
    """Read staleness, update size, gradient norm and oscillation from ``p.grad``, the gradient of the step just taken.

    Σ v̂ / Σ g²,  max over tensors of √mean(g² / max(v̂, ε²)),  √Σ g²,  as in ``signals`` but in the state's own
    precision, and ``signals.oscillation``

    Args:
        optimizer: as it is after its step; nothing of it is changed.
        noted_norm: √Σ g² before something other than the optimizer clipped or scaled ``p.grad``, if known.

    Returns:
        The fields, ``v_hat_decay`` among them where v averages just these squares. Only the oscillation, and
        ``noted_norm``, where ``p.grad`` was clipped or scaled in place. Empty where it does not hold what the step was
        computed from: gone or zeroed after the step, not finite, sparse, or larger than v allows, (1-b2) Σ g² > Σ v.

    Cost: some twenty elementwise passes and two transfers: 0.1-0.7 of a gradient as counted.
    """
    tensors = [t for t in read_tensors(optimizer) if t.param.grad is not None and t.param.numel() > 0]
    if not tensors or any(g.is_sparse for g in _gradients(tensors)):
        return {}
    with torch.no_grad():
        entering = _entering(tensors, sign=-1.0 if is_maximizing(optimizer) else 1.0)
        raw, entered, sums, sums_under_root, scaled = _norms(tensors, entering)
    squares = [norm * norm for norm in entered]
    total = sum(squares)
    if not 0 < total < math.inf or not all(map(math.isfinite, [*sums, *sums_under_root])):
        return {}
    if any(t.entry_share * s > _ROUNDING * v for t, s, v in zip(tensors, squares, sums, strict=True)):
        return {}
    oscillating = _oscillation(tensors, entering)
    if _is_clipped(optimizer):
        return oscillating
    norm = math.sqrt(sum(norm * norm for norm in raw))
    if noted_norm is not None and not norm / _ROUNDING <= noted_norm <= _ROUNDING * norm:
        return oscillating | ({"gradient_norm": noted_norm} if math.isfinite(noted_norm) else {})
    v_hats = [v / t.correction for t, v in zip(tensors, sums_under_root, strict=True)]
    fields = {
        "gradient_norm": norm,
        "v_hat_staleness": sum(v_hats) / total,
        "update_rms": max(norm / math.sqrt(t.param.numel()) for t, norm in zip(tensors, scaled, strict=True)),
    }
    decay = _decay(tensors, squares, sums) if _averages_what_is_left(optimizer, tensors) else None
    return oscillating | (fields if decay is None else fields | {"v_hat_decay": decay})


def _oscillation(tensors: Sequence[AdaptiveTensor], entering: Sequence[Tensor]) -> dict[str, float]:
    found = oscillation(tensors, entering)
    return {} if found is None else {"oscillation_energy": found.energy, "oscillation_refill": found.refill}


def _averages_what_is_left(optimizer: torch.optim.Optimizer, tensors: Sequence[AdaptiveTensor]) -> bool:
    """Whether v, and v alone, averages exactly the squares of ``p.grad``: no mitigation, no coupled decay, no sum."""
    is_mitigated = any(group.get(name) is not None for group in optimizer.param_groups for name in MITIGATIONS)
    is_plain = all(t.denominator_moment is t.second_moment and not t.l2 and 0 < t.beta2 < 1 for t in tensors)
    return is_plain and not is_mitigated


def _decay(tensors: Sequence[AdaptiveTensor], squares: Sequence[float], sums: Sequence[float]) -> float | None:
    """``signals.v_hat_decay`` with the sums of the step before taken from v_{t-1} = (v_t - (1-b2) g²) / b2."""
    new = [t.entry_share * square for t, square in zip(tensors, squares, strict=True)]
    decayed = sum(sums) - sum(new)
    total = sum((v - n) / t.beta2 for t, v, n in zip(tensors, sums, new, strict=True))
    if not 0 < decayed < total:
        return None
    return math.log(sum(sums) / total) / math.log(decayed / total)


def _entering(tensors: Sequence[AdaptiveTensor], *, sign: float) -> list[Tensor]:
    """Return what entered the moments: the gradient as descended, with the coupled decay."""
    return [
        sign * g + t.l2 * t.param if t.l2 else (g if sign > 0 else -g)
        for g, t in zip(_gradients(tensors), tensors, strict=True)
    ]


def _gradients(tensors: Sequence[AdaptiveTensor]) -> list[Tensor]:
    return [t.param.grad for t in tensors if t.param.grad is not None]


def _norms(tensors: Sequence[AdaptiveTensor], entering: list[Tensor]) -> list[list[float]]:
    """Per tensor ‖∇‖, ‖g‖ with the coupled decay, ‖v‖₁, that under the root and ‖g / max(√v̂, ε)‖, fetched together."""
    raw = _gradients(tensors)
    moments, under_root = [t.second_moment for t in tensors], [t.denominator_moment for t in tensors]
    roots = list(torch._foreach_sqrt(under_root))
    torch._foreach_mul_(roots, [t.correction**-0.5 for t in tensors])
    floors = [max(t.eps, torch.finfo(root.dtype).tiny) for t, root in zip(tensors, roots, strict=True)]
    torch._foreach_clamp_min_(roots, floors)
    entering_norms, sums = list(torch._foreach_norm(entering)), list(torch._foreach_norm(moments, 1))
    is_v_under_root = all(one is other for one, other in zip(moments, under_root, strict=True))
    found = [
        *(torch._foreach_norm(raw) if any(t.l2 for t in tensors) else entering_norms),
        *entering_norms,
        *sums,
        *(sums if is_v_under_root else torch._foreach_norm(under_root, 1)),
        *torch._foreach_norm(torch._foreach_div(entering, roots)),
    ]
    values, n = _fetch(found), len(tensors)
    return [values[i : i + n] for i in range(0, 5 * n, n)]


def _fetch(values: Sequence[Tensor]) -> list[float]:
    if len({(value.device, value.dtype) for value in values}) > 1:
        return [float(value) for value in values]
    return [float(value) for value in torch.stack(list(values)).tolist()]


def _is_clipped(optimizer: torch.optim.Optimizer) -> bool:
    norm, limit = getattr(optimizer, "grad_norm", None), optimizer.param_groups[0].get("max_grad_norm")
    return norm is not None and limit is not None and not norm + 1e-6 <= limit
