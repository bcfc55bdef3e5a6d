"""Stale preconditioner: v̂ outlived its gradients and fell, until S passed the edge with the Hessian where it was."""

from __future__ import annotations

from stabletune.judgement.finding import Finding
from stabletune.judgement.onset import Onset
from stabletune.judgement.rules import STALE

NAME = "stale preconditioner"
RANK = 5
EDGE_REACHED = 0.93
REACH = 100
SHORTER = 20.0
LOWEST_BETA2 = 0.9


def find(onset: Onset) -> Finding | None:
    """S at the edge before a spike that grew over several steps, after v̂ had been ten times its gradients or more."""
    if onset.is_sudden or onset.stalest is None:
        return None
    step, staleness = onset.stalest
    if staleness < STALE:
        return None
    readings = onset.readings(onset.step - REACH, onset.step)
    at_edge = [m for m in readings if m.sharpness_ratio is not None and m.sharpness_ratio >= EDGE_REACHED]
    if not at_edge:
        return None
    reading = at_edge[-1]
    foreseen = reading.foreseen_sharpness_ratio
    by_v_hat = "" if foreseen is None else f" (v_hat alone makes it {foreseen:.3g})"
    return Finding(
        f"sharpness_ratio was {reading.sharpness_ratio:.3g} at step {reading.step}{by_v_hat}; at step {step} v_hat was "
        f"{staleness:.3g} times its gradients, and the instability grew over several steps.",
        _remedy(onset),
    )


def _remedy(onset: Onset) -> str:
    params = onset.history.spec.params
    beta2 = float(params["beta2"])
    lower = max(LOWEST_BETA2, 1.0 - SHORTER * (1.0 - beta2))
    if lower < beta2:
        return f"Lower beta2 from {beta2:.6g} to {lower:.4g}."
    return f"Lower lr from {float(params['lr']):.3g} to {0.5 * float(params['lr']):.3g}."
