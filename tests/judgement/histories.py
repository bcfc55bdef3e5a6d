"""Histories of trials made by hand: a usual loss with a spike, and what would be recorded beside it."""

import math

from stabletune.judgement.history import History
from stabletune.judgement.spikes import SpikeDetector
from stabletune.records import BatchLook, Inspection, Measurement
from tests.trial.specs import quadratic_spec

ONSET = 301
ADAM = {"beta1": 0.9, "beta2": 0.99}


def calm(n=ONSET - 1, level=1.0):
    """Losses or gradient norms that wobble by one in a hundred."""
    return [level * (1.0 + 0.01 * (step % 2)) for step in range(n)]


def history_of(losses, norms=None, rates=None, **params):
    """A history with these losses, gradient norms and learning rates."""
    history = History(quadratic_spec(steps=len(losses), params=params), SpikeDetector(0.0))
    norms = norms or [math.nan] * len(losses)
    rates = rates or [1e-3] * len(losses)
    for loss, norm, lr in zip(losses, norms, rates, strict=True):
        history.add(loss, gradient_norm=norm, lr=lr)
    return history


def blow(height=5.0):
    """A loss and a gradient that are high in one step, and fall again."""
    tail = [height, height * 0.8, height * 0.6]
    return history_of(calm() + tail, calm() + tail)


def growth(*, quiet=0.05, factor=1.3):
    """A gradient that was small for long, then grew by a factor at every step; the loss follows at the end."""
    norms = calm(200) + calm(ONSET - 1 - 200 - 12, quiet)
    norms += [quiet * factor**k for k in range(1, 13)]
    norms += [norms[-1] * factor, norms[-1] * factor**2]
    return history_of([*calm(), 1.6, 2.5], norms)


def reading(step, ratio, foreseen=None, logits=None):
    """A measurement."""
    return Measurement(
        step=step, loss=1.0, lr=1e-3, sharpness_ratio=ratio, foreseen_sharpness_ratio=foreseen, largest_logits=logits
    )


def look(suspect, others, *, step=ONSET, norm=1.0, other_norm=1.0, **changes):
    """The suspect of the onset beside others, each of the losses given."""
    given = {"step": step, "suspect": BatchLook(step=ONSET, loss_then=5.0, loss=suspect, gradient_norm=norm)}
    given["others"] = tuple(
        BatchLook(step=ONSET - k, loss_then=1.0, loss=loss, gradient_norm=other_norm)
        for k, loss in enumerate(others, 1)
    )
    return Inspection(**{**given, **changes})


def oscillating(step, energy, refill, **fields):
    return Measurement(step=step, loss=1.0, lr=1e-3, oscillation_energy=energy, oscillation_refill=refill, **{**fields})


def at_edge(step, ratio=0.99):
    """A reading of S."""
    return Measurement(step=step, loss=1.0, lr=1e-3, sharpness_ratio=ratio)


def growing_oscillation(
    *, energy=0.01, refill=0.3, earlier=0.25, apart=4, ratio=0.99, read_at=150, n_calm=200, pace=1.2, **params
):
    """A calm loss, a gradient that grows by ``pace`` a step at the end, S read once, the oscillation measured twice."""
    measurements = [] if ratio is None else [at_edge(read_at, ratio)]
    n_steps = n_calm + 10
    history = History(quadratic_spec(params=ADAM | params), SpikeDetector(), measurements=measurements)
    for step in range(1, n_steps + 1):
        norm = 0.1 * (1.0 + 0.01 * (step % 2)) * pace ** max(0, step - n_calm)
        history.add(1.0 + 0.01 * (step % 2), gradient_norm=norm)
    history.measurements.append(oscillating(n_steps - apart, energy * earlier, refill * earlier))
    history.measurements.append(oscillating(n_steps, energy, refill))
    return history
