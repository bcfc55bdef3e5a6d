"""Resetting the memory of a second moment that has outlived its gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

AGE = "exp_avg_sq_age"
STALE_STEPS = "exp_avg_sq_stale_steps"
MOST_STALE_STEPS = 3
YOUNG = 5


def reset_stale_memories(
    grads: Sequence[Tensor], states: Sequence[dict[str, Any]], *, limit: float, beta2: float
) -> None:
    """Let each second moment that is stale forget, before this step's gradient enters it.

    v̂ is stale where  g² < v̂_{t-1} / τ  for more than half of the coordinates  and  Σ g² < Σ v̂_{t-1} / τ,
    the latter being v_hat_decay > 1 - 1/τ in the limit of b2 near 1. From the third stale step in a row on, as long as
    they last, v̂ counts as an average of its last 5 gradients: a ← min(a, 5) for the a of ``second_moment_average``,
    which then grows by one a step. v̂ itself is left as it is, and S with it; what enters next weighs 1/6 instead of
    1-b2, so that v̂ comes down to the recent g² within some ten steps and follows them up again as fast.

    To rescale v at once is worse than nothing: S leaps, and the burst that follows enters with 1-b2 as before. On tanh
    regression and diabetes that had 2-3 times the spikes and severity of plain AdamW; docs/mitigations.md.

    Args:
        grads: what enters the moments, one per state; not changed.
        states: with ``step`` and ``exp_avg_sq`` of before this step; ages and counts of stale steps are kept in them.
        limit: τ > 1.
        beta2: b2 of the group, as torch uses it.

    Cost: two elementwise passes, three reductions, two temporaries; one transfer per call waits for the device.
    Source: the remedy that arXiv:2506.04805 suggests; the rule is stabletune's own.
    """
    known = [index for index, state in enumerate(states) if float(state["step"]) > 0]
    flags = dict(
        zip(known, _are_stale([grads[i] for i in known], [states[i] for i in known], limit, beta2), strict=True)
    )
    for index, is_stale in flags.items():
        state = states[index]
        state[STALE_STEPS] = state.get(STALE_STEPS, 0) + 1 if is_stale else 0
        if state[STALE_STEPS] >= MOST_STALE_STEPS:
            state[AGE] = min(state.get(AGE, int(state["step"])), YOUNG)


def _are_stale(grads: Sequence[Tensor], states: Sequence[dict[str, Any]], limit: float, beta2: float) -> list[bool]:
    if not states:
        return []
    bounds = torch._foreach_div(
        [s["exp_avg_sq"] for s in states], [limit * (1 - beta2 ** float(s["step"])) for s in states]
    )
    squares = torch._foreach_mul(list(grads), list(grads))
    flags = [
        (2 * (square < bound).sum() > square.numel()) & (square.sum() < bound.sum())
        for square, bound in zip(squares, bounds, strict=True)
    ]
    if len({flag.device for flag in flags}) > 1:
        return [bool(flag) for flag in flags]
    return [bool(flag) for flag in torch.stack(flags).tolist()]
