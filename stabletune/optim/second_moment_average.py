"""How much of each squared gradient enters the second moment: torch's share, a schedule's, or a younger average's.

In: step counts and settings. Out: two numbers per tensor. The bias-corrected v̂ = v / (1 - b2^t) is the average in every
case, so that a rule can be switched on, off, or loaded into torch's own AdamW at any step without a jump of v̂.
"""

from __future__ import annotations

from stabletune.hyperparameters import scheduled_beta2


def second_moment_average(
    step: int, *, beta2: float, exponent: float | None = None, age: int | None = None
) -> tuple[float, float]:
    """Give the two factors of one update of v, v_t = decay v_{t-1} + share g_t².

    v̂_t = (1-s) v̂_{t-1} + s g_t²,   v̂_t = v_t / (1 - b2^t)   for every s, hence
    share = (1 - b2^t) s,   decay = (1 - b2^t) (1-s) / (1 - b2^{t-1})

    s = (1-b2) / (1 - b2^t)      plain Adam: decay = b2, share = 1-b2
    s = 1 - b2_t                 by ``scheduled_beta2``: b2_1 = 0, so that v̂_1 = g_1² and no bias is left to correct
    s = (1-b2_t) / (1 - b2_t^a)  after ``second_moment_reset``: an average of its last a gradients, this one included

    Args:
        step: t >= 1, of the gradient that enters.
        beta2: b2 of the group, as torch uses it.
        exponent: c of ``scheduled_beta2``, or None.
        age: 1 <= a <= t, or None while nothing was reset.

    Returns:
        (decay, share); decay is 0 at the first step, where there is no v yet, unless it is torch's own b2.
    """
    if exponent is None and age is None:
        return beta2, 1.0 - beta2
    decay_rate = scheduled_beta2(step, beta2, exponent)
    entering = 1.0 - decay_rate if age is None else (1.0 - decay_rate) / (1.0 - decay_rate**age)
    weight, weight_before = 1.0 - beta2**step, 1.0 - beta2 ** (step - 1)
    kept = weight * (1.0 - entering) / weight_before if weight_before > 0 else 0.0
    return kept, weight * entering
