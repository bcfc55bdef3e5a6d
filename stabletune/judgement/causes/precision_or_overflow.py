"""Precision or overflow: the arithmetic left the range of its format, or the same loss in float64 is another."""

from __future__ import annotations

import math

import numpy as np

from stabletune.judgement.causes.schedule_jump import find_jump
from stabletune.judgement.finding import Finding
from stabletune.judgement.onset import Onset
from stabletune.records import Inspection

NAME = "precision or overflow"
RANK = 0
PRECISE_SHARE = 0.5
NORMAL_LOSS = 3.0
MOST_GROWN = 100.0  # of the usual loss: one that grew further had diverged before its format ended
STEPS_BEFORE = 3
_WIDER = {"float16": "bfloat16", "bfloat16": "float32"}


def find(onset: Onset) -> Finding | None:
    """A loss that float64 does not confirm, a gradient that vanishes, what stops being finite within one step."""
    look, _ = onset.inspections()
    for evidence in (_against_float64, _broken_gradient, _vanished_gradient, _broken_loss):
        finding = evidence(onset, look)
        if finding is not None:
            return finding
    return None


def _against_float64(onset: Onset, look: Inspection | None) -> Finding | None:
    if look is None or look.precise_loss is None or not math.isfinite(look.precise_loss) or look.precise_loss <= 0:
        return None
    loss, precise = look.suspect.loss, look.precise_loss
    if math.isfinite(loss):
        is_undone = math.log(max(loss, 1e-300)) - math.log(precise) >= PRECISE_SHARE * onset.jump
    else:
        is_undone = precise <= MOST_GROWN * onset.usual_loss
    if not is_undone:
        return None
    evidence = (
        f"the batch of step {look.suspect.step} has loss {loss + onset.floor:.4g} as computed, and "
        f"{precise + onset.floor:.4g} when the same forward pass is computed in float64"
    )
    return Finding(f"{evidence}.", _remedy(look))


def _broken_gradient(onset: Onset, look: Inspection | None) -> Finding | None:
    for index in range(max(0, onset.index - STEPS_BEFORE), onset.index):
        loss, norm = float(onset.losses[index]), float(onset.gradient_norms[index])
        if np.isfinite(loss) and (math.isinf(norm) or (math.isnan(norm) and _has_norm_before(onset, index))):
            step = onset.step - onset.index + index
            evidence = f"at step {step} the loss was {loss + onset.floor:.4g}, but its gradient was not finite"
            return Finding(f"{evidence}; the loss followed at step {onset.step}.", _remedy(look))
    return None


def _vanished_gradient(onset: Onset, look: Inspection | None) -> Finding | None:
    """A gradient of exactly zero in every entry, in a format that knows nothing between zero and 6e-8."""
    last = onset.gradient_norms[max(0, onset.index - STEPS_BEFORE) : onset.index + 1]
    if look is None or look.lowest_precision not in _WIDER or not last.size or (last != 0.0).any():
        return None
    if look.suspect.gradient_norm:  # computed anew it is there: someone zeroed what was held
        return None
    return Finding(
        f"in the last {last.size} steps every gradient was exactly zero at a loss of "
        f"{onset.usual_loss + onset.floor:.4g}: too small for {look.lowest_precision}.",
        f"Compute in {_WIDER[look.lowest_precision]} instead of {look.lowest_precision}, or scale up the loss before "
        "the backward pass (GradScaler).",
    )


def _has_norm_before(onset: Onset, index: int) -> bool:
    return index > 0 and math.isfinite(float(onset.gradient_norms[index - 1]))


def _broken_loss(onset: Onset, look: Inspection | None) -> Finding | None:
    """Not finite one step after a loss like those before, on a batch that was looked at and is finite itself."""
    if onset.is_finite or onset.index < 1 or find_jump(onset) is not None:
        return None
    before = float(onset.losses[onset.index - 1])
    if not before <= NORMAL_LOSS * onset.usual_loss:
        return None
    if look is None:
        return None
    if not math.isfinite(look.suspect.loss):
        if not look.has_finite_inputs or any(math.isfinite(other.loss) for other in look.others):
            return None
    evidence = (
        f"the loss went from {before + onset.floor:.4g} (usual: {onset.usual_loss + onset.floor:.4g}) to "
        f"{onset.history.losses[onset.index]} in one step, without growing before"
    )
    return Finding(f"{evidence}.", _remedy(look))


def _remedy(look: Inspection | None) -> str:
    narrow = look.lowest_precision if look is not None else None
    if narrow in _WIDER:
        return f"Compute in {_WIDER[narrow]} instead of {narrow}, or scale down what grows too large for it."
    return "Write the operation that overflows in a form that cannot (log-sum-exp, a clamp, an eps under a root)."
