"""How likely a trial that is clean so far is to spike before the full horizon, and how far the edge is."""

from __future__ import annotations

import math

from stabletune.judgement.history import History
from stabletune.judgement.rules import RECENT, predicted_rise

RISK_SLOPE = 1.1
RISK_OFFSET = -2.7
RISK_UNKNOWN = 0.5
ONSET_SLOPE, ONSET_OFFSET = 0.34, -0.42
SHARPNESS_SLOPE, SHARPNESS_OFFSET = 10.0, 0.1
LOWEST, HIGHEST = -2.0, 1.0
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

    :math:`1 / (1 + \exp(-a - b h))`, h the lower of the two ``horizon_features``: a spike needs an oscillation that
    would be one, and S at its edge. 0.5 if nothing was measured.

    a and b are fitted on the tuning families of the corpus. docs/prediction.md has the figures and what they are worth.
    """
    features = horizon_features(history)
    if features is None:
        return RISK_UNKNOWN
    return 1.0 / (1.0 + math.exp(-RISK_OFFSET - RISK_SLOPE * min(features)))


def expected_onset(history: History) -> float | None:
    """The step at which a trial that spikes later will do so first, about: t (1 + 10^(c - d h)), h of ``spike_risk``.

    None if nothing was measured. c and d are fitted as well; for half of such runs the wait is right within a factor of
    two.
    """
    features = horizon_features(history)
    if features is None:
        return None
    return history.step * float(1.0 + 10.0 ** (ONSET_OFFSET - ONSET_SLOPE * min(features)))


def horizon_features(history: History) -> tuple[float, float] | None:
    """How high the next oscillation would rise, and how near S is to its edge, each at 0 where it begins to matter.

    log10 of the highest spike score predicted by a measurement of the last 150 steps (``rules.predicted_rise``), and
    10 log10 S + 0.1 for the highest of the last three S; both within -2 and 1. None where either is not known.
    """
    spikes, params = history.spikes, history.spec.params
    recent = [m for m in history.measurements if m.step > history.step - RECENT]
    rises = [rise for m in recent if (rise := predicted_rise(m, params)) is not None]
    ratios = [m.sharpness_ratio for m in history.measurements if m.sharpness_ratio is not None][-_RECENT_READINGS:]
    if not rises or not ratios or math.isnan(spikes.baseline):
        return None
    height = _log10(spikes.score_of(spikes.baseline + max(rises)))
    return _clipped(height), _clipped(SHARPNESS_SLOPE * _log10(max(ratios)) + SHARPNESS_OFFSET)


def _log10(value: float) -> float:
    return math.log10(value) if value > 0.0 else -math.inf


def _clipped(value: float) -> float:
    return min(HIGHEST, max(LOWEST, value))
