"""How likely a trial that is clean so far is to spike before the full horizon, and how far the edge is."""

from __future__ import annotations

import math

from stabletune.judgement.history import History
from stabletune.judgement.rules import RECENT, beta2_at, predicted_rise
from stabletune.judgement.spikes import SMALLEST, SpikeDetector
from stabletune.schedules import lr_factor

RISK_OFFSET, RISK_BY_POTENTIAL, RISK_BY_RATE = -0.19, 0.29, 1.35
WAIT, WAIT_POWER = 0.81, 0.2
RISK_UNKNOWN = 0.5
SHARPNESS_POWER = 4.0
HEIGHTS, RATIOS, RATES = (0.01, 10.0), (0.01, 1.2), (0.05, 1.0)


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
    square, memory = max(sharpness_ratio, SMALLEST) ** 2, beta2**step
    return math.log(square / (1.0 - memory + square * memory)) / math.log(beta2)


def spike_risk(history: History) -> float:
    r"""Probability that a clean short trial's settings spike before the full horizon.

    :math:`1 / (1 + \exp(-a - b h - c r))`, h by ``spike_potential``, r by ``rate_to_come``; 0.5 where S or the
    oscillation was not measured. a, b and c are fitted on the tuning families of the corpus; docs/prediction.md has the
    figures and what they are worth.
    """
    potential = spike_potential(history)
    if potential is None:
        return RISK_UNKNOWN
    odds = RISK_OFFSET + RISK_BY_POTENTIAL * potential + RISK_BY_RATE * rate_to_come(history)
    return 1.0 / (1.0 + math.exp(-odds))


def expected_onset(history: History) -> float | None:
    """The step at which a trial that spikes later will do so first, about: t + max(c t p^-d, steps to the edge).

    p by ``predicted_height``, the edge by ``steps_to_edge`` from the highest of the last three S, though no later than
    the full horizon. None where p is unknown. c and d are fitted as well; for half of such runs the wait is right
    within a factor of two.
    """
    height = predicted_height(history)
    if height is None:
        return None
    wait = WAIT * history.step * float(_within(height, HEIGHTS) ** -WAIT_POWER)
    rest = float(history.spec.full_steps - history.step)
    ratio, beta2 = max(_last_ratios(history, 3), default=0.0), beta2_at(history.step, history.spec.params)
    to_edge = steps_to_edge(ratio, history.step, beta2) if ratio > 0.0 and beta2 > 0.0 else 0.0
    return history.step + max(wait, min(to_edge, rest))


def spike_potential(history: History) -> float | None:
    r"""Return log10(p S⁴): a spike needs an oscillation that would be one, and S at its edge.

    p by ``predicted_height``, within 0.01 and 10; S the highest of the last six, within 0.01 and 1.2. None where either
    is unknown.
    """
    ratios = _last_ratios(history, 6)
    height = predicted_height(history)
    if height is None or not ratios:
        return None
    return math.log10(_within(height, HEIGHTS)) + SHARPNESS_POWER * math.log10(_within(max(ratios), RATIOS))


def rate_to_come(history: History) -> float:
    """Log of the learning rate halfway through the rest of the horizon over that of now, within log 0.05 and 0.

    A rate that decays takes S away from its edge.
    """
    spec, step = history.spec, history.step

    def factor(at: int) -> float:
        return lr_factor(spec.schedule, at, warmup_steps=spec.warmup_steps, full_steps=spec.full_steps)

    now = factor(step)
    return math.log(_within(factor((step + spec.full_steps) // 2) / now, RATES)) if now > 0.0 else 0.0


def predicted_height(history: History) -> float | None:
    """The highest spike score that a measurement of the last 150 steps predicts (``rules.predicted_rise``).

    Each is judged as the loss was then. None where the oscillation was not measured.

    Cost: one pass over the losses, 5 µs a step.
    """
    recent = [m for m in history.measurements if m.step > history.step - RECENT]
    rises = {m.step: rise for m in recent if (rise := predicted_rise(m, history.spec.params)) is not None}
    spikes, heights = SpikeDetector(history.spikes.loss_floor), []
    for step, loss in enumerate(history.losses, start=history.n_before + 1):
        spikes.update(loss)
        if step in rises:
            heights.append(spikes.score_of(spikes.baseline + rises[step]))
    return max((height for height in heights if not math.isnan(height)), default=None)


def _last_ratios(history: History, n: int) -> list[float]:
    return [m.sharpness_ratio for m in history.measurements if m.sharpness_ratio is not None][-n:]


def _within(value: float, bounds: tuple[float, float]) -> float:
    return min(bounds[1], max(bounds[0], value))
