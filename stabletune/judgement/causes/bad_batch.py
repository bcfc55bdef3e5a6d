"""Bad batch: one batch stands out from those around it under the same parameters, and does so again."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np

from stabletune.judgement.finding import Finding
from stabletune.judgement.onset import Onset, times
from stabletune.records import BatchLook, Inspection

NAME = "bad batch"
RANK = 1
LOSS_SHARE = 0.5
AGAIN_SHARE = 0.25
GRADIENT_RATIO = 5.0
AGAIN_RATIO = 2.5
FEWEST_REPEATS, MOST_REPEATS = 3, 6
SHORTEST_CYCLE = 4


def find(onset: Onset) -> Finding | None:
    """At the onset, and again later: a loss that is half of the jump, or five times the others' gradient.

    The loss counts where it came in one step: in a rise that took several, batches that differ anyway differ more.
    """
    return _compared(onset) or _periodic(onset)


def _compared(onset: Onset) -> Finding | None:
    look, again = onset.inspections()
    if look is None or not look.others:
        return None
    if not math.isfinite(look.suspect.loss):
        return _not_finite(look, onset.floor)
    by_loss = onset.is_sudden and _log_ratio(look, _loss) >= LOSS_SHARE * onset.jump
    by_gradient = _log_ratio(look, _norm) >= math.log(GRADIENT_RATIO)
    if not (by_loss or by_gradient):
        return None
    if again is not None and again.others:
        repeats_loss = _log_ratio(again, _loss) >= AGAIN_SHARE * onset.jump
        repeats_gradient = _log_ratio(again, _norm) >= math.log(AGAIN_RATIO)
        if not (repeats_loss or repeats_gradient):
            return None
    return Finding(_evidence(look, again, onset.floor), _remedy(look, onset))


def _periodic(onset: Onset) -> Finding | None:
    """Single losses that stand out at one position of a cycle, each time with a usual loss right after it.

    What is left where the closure shows a fixed batch: then the batch of a step cannot be computed anew.
    """
    if not onset.is_finite:
        return None
    level = onset.usual_loss * times(LOSS_SHARE * onset.jump)
    is_high = np.nan_to_num(onset.losses, nan=math.inf) >= level
    first = onset.step - onset.index
    high = [first + k for k in np.flatnonzero(is_high).tolist() if k >= onset.index][:MOST_REPEATS]
    gaps = {b - a for a, b in itertools.pairwise(high)}
    if len(high) < FEWEST_REPEATS or len(gaps) > 1 or min(gaps) < SHORTEST_CYCLE:
        return None
    period = gaps.pop()
    return Finding(
        f"from step {onset.step} on, the loss stands out at single steps, {period} apart: {', '.join(map(str, high))}, "
        "with usual losses between.",
        f"Inspect or drop the batch that comes every {period} steps, at step {onset.step} first.",
    )


def _not_finite(look: Inspection, floor: float) -> Finding | None:
    """Of a loss that is not finite the batch is to blame where the others are finite under the same parameters."""
    is_alone = all(math.isfinite(other.loss) for other in look.others)
    if not is_alone:
        return None
    also = ", also in float64," if look.precise_loss is not None else ""
    return Finding(
        f"the batch of step {look.suspect.step} has loss {look.suspect.loss}{also} and the "
        f"{len(look.others)} before it {_median(look, _loss) + floor:.4g} under the same parameters.",
        f"Inspect the batch of step {look.suspect.step} for values that are not finite, and drop it.",
    )


def _evidence(look: Inspection, again: Inspection | None, floor: float) -> str:
    text = (
        f"the batch of step {look.suspect.step} has loss {look.suspect.loss + floor:.4g} where the {len(look.others)} "
        f"before it have {_median(look, _loss) + floor:.4g}, and gradient norm {_norm(look.suspect):.3g} where the "
        f"last of them has {_median(look, _norm):.3g}, under the same parameters"
    )
    if again is None or not again.others:
        return f"{text}."
    return (
        f"{text}; again at step {again.step}: {again.suspect.loss + floor:.4g} and {_norm(again.suspect):.3g} "
        f"against {_median(again, _loss) + floor:.4g} and {_median(again, _norm):.3g}."
    )


def _remedy(look: Inspection, onset: Onset) -> str:
    drop, usual = f"Inspect or drop the batch of step {look.suspect.step}", _median(look, _norm)
    clip = onset.history.spec.params.get("max_grad_norm") or math.inf
    if not math.isfinite(usual):
        return f"{drop}."
    if usual >= 0.9 * clip:
        return f"{drop}: the clip in force limits what it does to the weights, but not its own loss."
    return f"{drop}; if it must stay, set max_grad_norm: {usual:.2g} for the weights' sake: its own loss stays high."


def _loss(batch: BatchLook) -> float:
    return batch.loss


def _norm(batch: BatchLook) -> float:
    return math.nan if batch.gradient_norm is None else batch.gradient_norm


def _median(look: Inspection, value: Callable[[BatchLook], float]) -> float:
    found = [value(other) for other in look.others if math.isfinite(value(other))]
    return float(np.median(found)) if found else math.nan


def _log_ratio(look: Inspection, value: Callable[[BatchLook], float]) -> float:
    own, usual = value(look.suspect), _median(look, value)
    return math.log(own) - math.log(usual) if own > 0 and usual > 0 and math.isfinite(own) else 0.0
