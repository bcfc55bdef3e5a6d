"""Learning-rate schedules as a factor on lr, known to workers, forecasts and exporters alike.

The shapes are those of Hugging Face's schedulers, so that an exported name means the same curve.
"""

from __future__ import annotations

import math
from typing import Literal

ScheduleName = Literal["constant", "cosine", "linear", "wsd"]
SCHEDULES: tuple[str, ...] = ("constant", "cosine", "linear", "wsd")
WSD_DECAY_SHARE = 0.2


def steps_of(share: float, full_steps: int) -> int:
    """The whole number of steps nearest to a share of the horizon; halfway between two, the even one."""
    return round(share * full_steps)


def wsd_decay_steps(full_steps: int) -> int:
    """How many of the last steps ``wsd`` decays in: a fifth of the horizon, at least one."""
    return max(1, steps_of(WSD_DECAY_SHARE, full_steps))


def lr_factor(name: str, step: int, *, warmup_steps: int, full_steps: int) -> float:
    """Factor on lr for the optimizer step that follows ``step`` earlier ones.

    Linear warm-up from 0 over ``warmup_steps``, then: constant 1; cosine and linear decay to 0 at ``full_steps``;
    ``wsd`` 1 until the last fifth of the horizon, then linearly to 0.

    Args:
        name: one of ``SCHEDULES``.
        step: optimizer steps already taken, from 0.
        warmup_steps: length of the warm-up.
        full_steps: the full horizon, warm-up included.
    """
    if step < warmup_steps:
        return step / warmup_steps
    remaining = max(0, full_steps - step)
    if name == "constant":
        return 1.0
    if name == "linear":
        return remaining / max(1, full_steps - warmup_steps)
    if name == "cosine":
        progress = min(1.0, (step - warmup_steps) / max(1, full_steps - warmup_steps))
        return 0.5 * (1.0 + math.cos(math.pi * progress))
    if name == "wsd":
        return min(1.0, remaining / wsd_decay_steps(full_steps))
    raise ValueError(f"schedule: must be one of {', '.join(SCHEDULES)}, but got {name!r}. Name one of them.")
