"""Observations for the tests of predictions: made by hand, or from a law of their own."""

import math

from stabletune.study.prediction.observation import Observation


def seen(lr=1e-3, place=(0.5,), steps=500, spiked=False, curve=(), risk=None, number=1, objective=None):
    return Observation(
        number=number,
        place=place,
        lr=lr,
        warmup_steps=0,
        full_steps=2500,
        steps=steps,
        has_spiked=spiked,
        curve=curve,
        log_initial=0.0,
        loss_floor=0.0,
        objective=objective,
        risk=risk,
        severity=2.0 if spiked else 0.0,
    )


def rate_at(share):
    """The learning rate at a share of the range from 1e-4 to 1e-1."""
    return 1e-4 * 1e3**share


def run_of_law(share, n_steps, law, steps=(39, 78, 156, 312)):
    """A run whose log loss is a function of lr times steps alone."""
    lr = rate_at(share)
    kept = [step for step in (*steps, n_steps) if step <= n_steps]
    return seen(lr, (share,), n_steps, curve=[(step, law(lr * step)) for step in kept])


def power_law(path):
    return -2.0 * math.log(1.0 + path)
