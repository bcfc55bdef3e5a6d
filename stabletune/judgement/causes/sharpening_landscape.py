"""Sharpening landscape: the raw Hessian moved, and carried S to the edge with it."""

from __future__ import annotations

import math

from stabletune.judgement.finding import Finding
from stabletune.judgement.onset import FAR, Onset, times
from stabletune.records import Measurement

NAME = "sharpening landscape"
RANK = 4
NEAR_EDGE = 0.75
HESSIAN_RATIO = 1.5
FAR_ABOVE = 1.2
SAFE = 0.7
SOON = 15


def find(onset: Onset) -> Finding | None:
    """A spike that grew over several steps, S near its edge, and the Hessian's part in log S above log 1.5.

    S itself may stay below 1 all the while: the gradients of a sharper landscape refill v̂. Where no two readings are
    near enough to tell the parts, S far above the edge though neither v̂ fell nor the learning rate rose.
    """
    if onset.has_changed_for_good:
        return _at_once(onset)
    readings = onset.readings(onset.step - FAR, onset.step)
    if onset.is_sudden or not readings:
        return None
    highest = max(readings, key=lambda m: m.sharpness_ratio or 0.0)
    if (highest.sharpness_ratio or 0.0) < NEAR_EDGE:
        return None
    evidence = _apart(onset, highest) if onset.climb is not None else _far_above(onset, highest)
    return None if evidence is None else Finding(evidence, _remedy(onset, highest))


def _at_once(onset: Onset) -> Finding | None:
    """The loss function or its data changed at the onset and stayed so; S is read right after."""
    for reading in onset.readings(onset.step, onset.step + SOON):
        ratio, foreseen = reading.sharpness_ratio or 0.0, reading.foreseen_sharpness_ratio or 0.0
        if ratio > HESSIAN_RATIO * foreseen > 0.0:
            return Finding(
                f"from step {onset.step} on every batch has another loss than those before it have under the same "
                f"parameters, and the raw curvature raised sharpness_ratio from {foreseen:.3g} to {ratio:.3g}.",
                _remedy(onset, reading),
            )
    return None


def _apart(onset: Onset, highest: Measurement) -> str | None:
    assert onset.climb is not None
    by_hessian, by_rest, since, until = onset.climb
    if by_hessian < math.log(HESSIAN_RATIO):
        return None
    return (
        f"between steps {since} and {until} the raw curvature raised sharpness_ratio {times(by_hessian):.3g} times, "
        f"v_hat and the learning rate changed it {times(by_rest):.3g} times; it reached "
        f"{highest.sharpness_ratio:.3g} at step {highest.step}."
    )


def _far_above(onset: Onset, highest: Measurement) -> str | None:
    since = max(onset.history.n_before + 1, highest.step - FAR)
    risen = onset.growth_by_v_hat(since, highest.step)
    if (highest.sharpness_ratio or 0.0) < FAR_ABOVE or risen is None or risen > 0.05:
        return None
    return (
        f"sharpness_ratio was {highest.sharpness_ratio:.3g} at step {highest.step}, though v_hat had not fallen in the "
        f"{highest.step - since} steps before and the learning rate had not risen: the raw curvature grew."
    )


def _remedy(onset: Onset, highest: Measurement) -> str:
    lr = onset.history.learning_rates[onset.history.index(highest.step)]
    lower = SAFE * lr / max(1.0, highest.sharpness_ratio or 1.0)
    return f"Lower the learning rate from {lr:.3g} to {lower:.2g} from there on."
