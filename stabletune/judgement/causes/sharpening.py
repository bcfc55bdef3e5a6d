"""Sharpening landscape: the raw Hessian moved, and carried S over the edge with it."""

from __future__ import annotations

from stabletune.judgement.finding import Finding
from stabletune.judgement.onset import Onset
from stabletune.records import Measurement

NAME = "sharpening landscape"
RANK = 4
EDGE_REACHED = 0.95
HESSIAN_RATIO = 1.25
FAR_ABOVE = 1.2
FRESH = 100
REACH = 100
SAFE = 0.7


def find(onset: Onset) -> Finding | None:
    """S at the edge or above, and over what the last Hessian foresaw for today's v̂ and learning rate by a quarter.

    Where the reading before is older than a hundred steps: S far above the edge though v̂ did not fall.
    """
    if onset.is_sudden:
        return None
    for reading in reversed(onset.readings(onset.step - REACH, onset.step)):
        evidence = _evidence(onset, reading)
        if evidence is not None:
            return Finding(evidence, _remedy(onset, reading))
    return None


def _evidence(onset: Onset, reading: Measurement) -> str | None:
    ratio, foreseen = reading.sharpness_ratio, reading.foreseen_sharpness_ratio
    if ratio is None or ratio < EDGE_REACHED:
        return None
    earlier = onset.readings(1, reading.step - 1)
    age = reading.step - earlier[-1].step if earlier else reading.step
    if foreseen is not None and age <= FRESH:
        if ratio < HESSIAN_RATIO * foreseen:
            return None
        return (
            f"sharpness_ratio was {ratio:.3g} at step {reading.step} where the Hessian of {age} steps before gives "
            f"{foreseen:.3g} for the same v_hat and lr: the raw curvature grew {ratio / foreseen:.3g} times."
        )
    fallen = onset.growth_by_v_hat(max(1, reading.step - FRESH), reading.step)
    if ratio < FAR_ABOVE or fallen > 0.05:
        return None
    return (
        f"sharpness_ratio was {ratio:.3g} at step {reading.step}, though v_hat had not fallen in the {FRESH} steps "
        "before and the learning rate had not risen: the raw curvature grew."
    )


def _remedy(onset: Onset, reading: Measurement) -> str:
    lr = onset.history.learning_rates[reading.step - 1]
    return f"Lower the learning rate from {lr:.3g} to {SAFE * lr / (reading.sharpness_ratio or 1.0):.2g} from there on."
