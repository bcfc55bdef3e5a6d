"""How likely a trial that is clean so far is to spike before the full horizon, and how far the edge is."""

from __future__ import annotations

import math

from stabletune.judgement.history import History

RISK_SLOPE = 1.1
RISK_OFFSET = -2.7
RISK_OUT_OF_REACH = 0.05
RISK_UNKNOWN = 0.5
REACH_IN_HORIZONS = 2.0
_RECENT_READINGS = 3


def steps_to_edge(sharpness_ratio: float, step: int, beta2: float) -> float:
    r"""Steps until S reaches 1 if nothing new entered v from now on and H and lr stayed as they are.

    S grows as :math:`\sqrt{\hat v_t / \hat v_{t+k}}` with
    :math:`\hat v_{t+k} / \hat v_t = \beta_2^k (1 - \beta_2^t) / (1 - \beta_2^{t+k})`. Setting the growth to 1 / S and
    solving for k gives :math:`k = \ln x / \ln \beta_2`, :math:`x = S^2 / (1 - \beta_2^t + S^2 \beta_2^t)`; without the
    bias correction it would be 2 ln(1 / S) / (-ln beta2), far too late in short trials.

    Args:
        sharpness_ratio: S at ``step``, positive.
        step: optimizer steps t behind v_hat, at least 1.
        beta2: in (0, 1).

    Returns:
        k, 0 from the edge on.

    Source: the decoupled stage of arXiv:2506.04805; the closed form is stabletune's own.
    """
    if sharpness_ratio >= 1.0:
        return 0.0
    square, memory = sharpness_ratio**2, beta2**step
    return math.log(square / (1.0 - memory + square * memory)) / math.log(beta2)


def spike_risk(history: History) -> float:
    r"""Probability that a clean short trial's settings spike before the full horizon.

    :math:`1 / (1 + \exp(2.7 - 1.1 \log_{10} s))` with s the largest ``v_hat_staleness`` seen: a v_hat that has once
    outlived its gradients by far will do so again. At most 0.05 where S could not reach its edge within two full
    horizons even if v only decayed, as in a network that has memorized its data; 0.5 if nothing was measured.

    Fitted on clean 500-step trials of four full-batch families against 2,500-step runs on another seed; there S
    itself ranks them no better than chance. docs/forecast.md has the figures and what the fit is worth.
    """
    staleness = [m.v_hat_staleness for m in history.measurements if m.v_hat_staleness is not None]
    sharpness = [m for m in history.measurements if m.sharpness_ratio is not None][-_RECENT_READINGS:]
    if not staleness or not sharpness:
        return RISK_UNKNOWN
    risk = 1.0 / (1.0 + math.exp(-RISK_OFFSET - RISK_SLOPE * math.log10(max(max(staleness), 1e-9))))
    beta2 = float(history.spec.params["beta2"])
    nearest = min(_edge_at(m.sharpness_ratio or 0.0, m.step, beta2) for m in sharpness)
    is_out_of_reach = nearest > REACH_IN_HORIZONS * history.spec.full_steps
    return min(risk, RISK_OUT_OF_REACH) if is_out_of_reach else risk


def _edge_at(sharpness_ratio: float, step: int, beta2: float) -> float:
    """The step at which S would reach 1; never for a loss without positive curvature, at once without memory."""
    if sharpness_ratio <= 0.0:
        return math.inf
    return step + (steps_to_edge(sharpness_ratio, step, beta2) if beta2 > 0.0 else 0.0)
