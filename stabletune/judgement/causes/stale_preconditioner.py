"""Stale preconditioner: v̂ outlived its gradients and fell, until S passed the edge with the Hessian where it was."""

from __future__ import annotations

import math

from stabletune.judgement.finding import Finding
from stabletune.judgement.onset import FAR, Onset, times

NAME = "stale preconditioner"
RANK = 5
STALE = 10.0
AT_EDGE = 0.93
FAR_ABOVE = 1.2
HESSIAN_RATIO = 1.3
CALM_BETA2 = 0.9


def find(onset: Onset) -> Finding | None:
    """A spike that grew over several steps, S at the edge, a Hessian that stayed, and a v̂ of ten times its gradients.

    v̂ is the sum over all coordinates, from the gradient norms of every step: readings after the onset would show it
    refilled. S mostly peaks at 1.02-1.09 in these spikes; where it is far above and no two readings tell whether the
    Hessian moved, nothing is said.
    """
    if onset.is_sudden or onset.stalest is None:
        return None
    step, staleness = onset.stalest
    readings = onset.readings(onset.step - FAR, onset.step)
    highest = max(readings, key=lambda m: m.sharpness_ratio or 0.0, default=None)
    if staleness < STALE or highest is None or (highest.sharpness_ratio or 0.0) < AT_EDGE:
        return None
    climb, stayed = onset.climb, ""
    if climb is None:
        has_moved = (highest.sharpness_ratio or 0.0) > FAR_ABOVE
    else:
        has_moved = climb.by_hessian > math.log(HESSIAN_RATIO)
        moved = f"{times(climb.by_hessian):.3g} times between steps {climb.since} and {climb.until}"
        stayed = f", and the raw curvature changed it {moved}"
    if has_moved:
        return None
    return Finding(
        f"sharpness_ratio was {highest.sharpness_ratio:.3g} at step {highest.step}{stayed}; at step {step} v_hat was "
        f"{staleness:.3g} times its gradients, and the instability grew over several steps.",
        _remedy(onset),
    )


def _remedy(onset: Onset) -> str:
    params = onset.history.spec.params
    beta2 = float(params["beta2"])
    if beta2 > CALM_BETA2:
        return f"Lower beta2 from {beta2:.6g} to {CALM_BETA2:g}; values between may spike more often, if less high."
    return f"Lower lr from {float(params['lr']):.3g} to {0.5 * float(params['lr']):.3g}."
