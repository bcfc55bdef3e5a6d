"""Schedule jump: the learning rate rose at once, where a warm-up would have raised it gradually."""

from __future__ import annotations

import numpy as np

from stabletune.judgement.finding import Finding
from stabletune.judgement.onset import Onset

NAME = "schedule jump"
RANK = 2
LEAST_RATIO = 1.4
OVER_STEPS = 3
REACH = 49
AT_ONCE = 25
OVER_USUAL_CHANGE = 4.0


def find(onset: Onset) -> Finding | None:
    """A rise of the learning rate by 1.4 or more within three steps, at most 49 steps before the onset.

    Within 25 steps the jump explains any spike; later only one that grew.
    """
    jump = find_jump(onset)
    if jump is None:
        return None
    step, before, after = jump
    if onset.step - step > AT_ONCE and onset.is_sudden:
        return None
    times = f" ({after / before:.3g} times)" if before > 0.0 else ""
    return Finding(
        f"the learning rate rose from {before:.3g} to {after:.3g}{times} at step {step}, {onset.step - step} steps "
        "before.",
        f"Raise the learning rate from {before:.3g} to {after:.3g} over {_warm_up(onset)} steps or more "
        "(warmup_ratio), or raise it less.",
    )


def find_jump(onset: Onset) -> tuple[int, float, float] | None:
    """The last jump before the onset: its step, the learning rate before and after.

    A warm-up rises as much at every step: what counts rises four times faster than the steps before it.
    """
    rates = np.asarray(onset.history.learning_rates[: onset.index + 1], dtype=np.float64)
    for last in range(rates.size - 1, max(OVER_STEPS, rates.size - REACH - 1) - 1, -1):
        before, after = float(rates[last - OVER_STEPS]), float(rates[last])
        if not (after >= LEAST_RATIO * before and rates[last] > rates[last - 1]):
            continue
        earlier = np.abs(np.diff(rates[max(0, last - OVER_STEPS - 20) : last - OVER_STEPS + 1]))
        usual = float(np.median(earlier)) if earlier.size else 0.0
        if earlier.size and (after - before) / OVER_STEPS > OVER_USUAL_CHANGE * usual:
            return onset.history.n_before + last + 1, before, after
    return None


def _warm_up(onset: Onset) -> int:
    """Steps over which v̂ renews itself, 50 at least and 500 at most."""
    beta2 = float(onset.history.spec.params["beta2"])
    return int(min(500, max(50, round(1.0 / max(1.0 - beta2, 1e-6)))))
