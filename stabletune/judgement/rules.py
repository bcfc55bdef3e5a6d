"""Rules that turn a trial's history into a finding: pure functions, so that they can be replayed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from stabletune.hyperparameters import scheduled_beta2
from stabletune.judgement.history import History
from stabletune.records import Measurement

EDGE = 1.0
AT_EDGE = 0.95
RECENT = 150
YOUNGEST = 60
LEAST_APART, MOST_APART = 2, 15
LEAST_GROWTH, CLEAR_GROWTH = 1.4, 2.0
OVER_STEPS = 8


@dataclasses.dataclass(frozen=True)
class ImminentSpike:
    """An oscillation that grows, how large it will become, and the highest S lately read."""

    step: int
    predicted_score: float
    predicted_ratio: float
    sharpness_ratio: float


def imminent_spike(history: History) -> ImminentSpike | None:
    """Find an oscillation that grows at the edge of stability, and will be a spike when v̂ stops it.

    Holds when all of these do at this step, at which the oscillation must have been measured: the gradient grows
    (``is_growing``), twofold over eight steps; S was 0.95 or more in the last 150 steps; and this measurement, as well
    as the last one 2-15 steps before it that had an energy 1.4 times smaller, predicts a spike score above 1
    (``predicted_rise``, in the units of ``SpikeDetector.score``). Never before 60 steps are known.

    S > 1 alone is where full-batch training rests; an oscillation that grows is mostly stopped by v̂ before the loss
    shows it. docs/prediction.md has how often this is right, beside other rules.

    Args:
        history: what is known; nothing of it is changed.

    Returns:
        The finding, or None.
    """
    now = history.measurements[-1] if history.measurements else None
    if (
        now is None
        or now.step != history.step
        or len(history.losses) < YOUNGEST
        or not is_growing(history.gradient_norms, CLEAR_GROWTH)
    ):
        return None
    highest, before = highest_recent_ratio(history), _smaller_one_before(history.measurements)
    if before is None or highest is None or highest < AT_EDGE:
        return None
    rises = [predicted_rise(m, history.spec.params) for m in (before, now)]
    lower, baseline = min(rise or 0.0 for rise in rises), history.spikes.baseline
    score = history.spikes.score_of(baseline + lower)
    return ImminentSpike(now.step, score, 1.0 + lower / baseline, highest) if score > 1.0 else None


def is_growing(gradient_norms: Sequence[float], factor: float = LEAST_GROWTH) -> bool:
    """Whether the gradient norm G grows as an oscillation lets it: by ``factor`` over eight steps, still at the end.

    Of M_t = max(G_t, G_{t-1}), since an oscillation shows at every second step: M_t > M_{t-2}, M_{t-1} > M_{t-3} and
    M_t > factor · M_{t-8}.
    """
    if len(gradient_norms) < OVER_STEPS + 2:
        return False
    now, one_ago, two_ago, three_ago, long_ago = (
        max(gradient_norms[-1 - k], gradient_norms[-2 - k]) for k in (0, 1, 2, 3, OVER_STEPS)
    )
    return now > two_ago and one_ago > three_ago and now > factor * long_ago


def predicted_rise(measurement: Measurement, params: Mapping[str, Any]) -> float | None:
    """Return how far the loss will rise above its baseline, if the oscillation grows until v̂ stops it.

    E max(1, R* / R): while an oscillation grows along one direction, its energy E and its refilling of v̂, R, keep
    their ratio, and it turns once R has reached R* (``turning_refill``). None where it was not measured.
    """
    energy, refill = measurement.oscillation_energy, measurement.oscillation_refill
    if energy is None or refill is None or refill <= 0.0:
        return None
    turning = turning_refill(float(params["beta1"]), beta2_at(measurement.step, params))
    return energy * max(1.0, turning / refill)


def turning_refill(beta1: float, beta2: float) -> float:
    r"""Return R*, the refill at which a growing oscillation turns.

    :math:`2\,(1-\beta_2)^{-1/3} \left(19\,\frac{1-\beta_1}{1+\beta_1}\right)^{0.45}`, the lower part of what was
    measured on full-batch spikes: S has overshot its edge for as many steps as the growth took, and v̂ has to make up
    for all of it. The slower v̂ is, and the faster an oscillation grows (a small beta1), the larger R*.
    """
    forgetting = max(1.0 - beta2, 1e-6)
    return float(2.0 * forgetting ** (-1.0 / 3.0) * (19.0 * (1.0 - beta1) / (1.0 + beta1)) ** 0.45)


def beta2_at(step: int, params: Mapping[str, Any]) -> float:
    """Return the beta2 of a step, counted from 1, by the settings of a trial."""
    return scheduled_beta2(step, float(params["beta2"]), params.get("beta2_exponent"))


def highest_recent_ratio(history: History) -> float | None:
    """The highest S of the last 150 steps; None if it was not read."""
    ratios = []
    for measurement in reversed(history.measurements):
        if measurement.step <= history.step - RECENT:
            break
        if measurement.sharpness_ratio is not None:
            ratios.append(measurement.sharpness_ratio)
    return max(ratios, default=None)


def _smaller_one_before(measurements: Sequence[Measurement]) -> Measurement | None:
    """The last measurement 2-15 steps before the newest with an energy 1.4 times smaller than there."""
    now = measurements[-1]
    for measurement in reversed(measurements[:-1]):
        if now.step - measurement.step > MOST_APART:
            return None
        energies = measurement.oscillation_energy, now.oscillation_energy
        if now.step - measurement.step < LEAST_APART or energies[0] is None or energies[1] is None:
            continue
        if energies[1] >= LEAST_GROWTH * energies[0]:
            return measurement
    return None
