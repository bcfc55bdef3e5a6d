"""A history that is known from a later step on tells the same causes as one known from the first, at its own steps."""

import dataclasses
import math
import re

import pytest

from stabletune.judgement.causes import (
    bad_batch,
    logit_growth,
    precision_or_overflow,
    schedule_jump,
    sharpening_landscape,
    stale_preconditioner,
)
from stabletune.judgement.history import History
from stabletune.judgement.onset import Onset
from stabletune.judgement.spikes import SpikeDetector
from tests.judgement.histories import ONSET, blow, calm, growth, history_of, look, reading

LATER = 10_000_000
EDGE = (reading(280, 0.98), reading(298, 1.03, foreseen=1.02))


def with_what_was_seen(history, readings=(), inspections=()):
    history.measurements += readings
    history.inspections += inspections
    return history


def repeated_batches():
    losses = calm(400)
    for step in (301, 317, 333, 349):
        losses[step - 1] = 5.0
    return history_of(losses)


def half_known(history):
    """The same without its first 250 steps, so that looking back a hundred steps ends at the first one known."""
    kept = history_of(history.losses[250:], list(history.gradient_norms[250:]), list(history.learning_rates[250:]))
    kept.measurements = [dataclasses.replace(m, step=m.step - 250) for m in history.measurements]
    return kept


def far_above():
    return with_what_was_seen(growth(quiet=1.0), [reading(290, 1.4)])


def vanished():
    seen = look(5.0, [5.0], lowest_precision="float16", norm=0.0)
    return with_what_was_seen(history_of([*calm(), 5.0], [*calm(ONSET - 20), *[0.0] * 20]), inspections=[seen])


RATES = [1e-3] * 295 + [1e-2] * 6 + [1.0]  # it jumps once more after the onset
NOT_FINITE = [*calm(ONSET - 2), math.inf, math.nan]
BROKEN = look(math.inf, [math.inf], precise_loss=math.inf, has_finite_inputs=True)
CASES = {
    "a batch that stands out": (bad_batch, with_what_was_seen(blow(), inspections=[look(4.8, [1.0, 1.1])]), ONSET),
    "a batch that comes again": (bad_batch, repeated_batches(), ONSET),
    "logits": (
        logit_growth,
        with_what_was_seen(growth(), [reading(200, None, logits=(9.0,)), reading(295, None, logits=(30.0,))]),
        ONSET,
    ),
    "a broken gradient": (precision_or_overflow, history_of([*calm(), math.inf], NOT_FINITE), ONSET),
    "a vanished gradient": (precision_or_overflow, vanished(), ONSET),
    "a broken loss": (
        precision_or_overflow,
        with_what_was_seen(history_of([*calm(), math.inf]), inspections=[BROKEN]),
        ONSET,
    ),
    "a schedule": (schedule_jump, history_of([*calm(), 5.0, 4.0], [*calm(), 5.0, 4.0], RATES), ONSET),
    "a landscape": (
        sharpening_landscape,
        with_what_was_seen(growth(), [reading(260, 0.5), reading(300, 1.1, foreseen=0.55)]),
        ONSET,
    ),
    "a landscape far above the edge": (sharpening_landscape, far_above(), ONSET),
    "one of which little is known": (sharpening_landscape, half_known(far_above()), ONSET - 250),
    "a stale v": (stale_preconditioner, with_what_was_seen(growth(quiet=0.05), EDGE), ONSET),
    "a stale v whose beta2 grows": (
        stale_preconditioner,
        with_what_was_seen(
            history_of(growth().losses, list(growth(quiet=0.05).gradient_norms), beta2=0.999, beta2_exponent=0.9), EDGE
        ),
        ONSET,
    ),
}


def later(history):
    """The same history, of which the first step known is the one after ``LATER``."""
    found = History(history.spec, SpikeDetector(history.spikes.loss_floor))
    found.begin_after(LATER)
    for loss, norm, lr in zip(history.losses, history.gradient_norms, history.learning_rates, strict=True):
        found.add(loss, gradient_norm=norm, lr=lr)
    found.measurements = [dataclasses.replace(m, step=m.step + LATER) for m in history.measurements]
    found.inspections = [
        dataclasses.replace(i, step=i.step + LATER, suspect=moved(i.suspect), others=tuple(map(moved, i.others)))
        for i in history.inspections
    ]
    return found


def moved(batch):
    return dataclasses.replace(batch, step=batch.step + LATER)


def moved_back(text):
    return re.sub(r"\b100\d{5}\b", lambda number: str(int(number.group()) - LATER), text)


@pytest.mark.parametrize("case", CASES)
def test_a_cause_is_found_at_the_steps_of_the_training(case):
    cause, history, step = CASES[case]
    early, late = cause.find(Onset(history, step)), cause.find(Onset(later(history), step + LATER))
    assert early is not None
    if "beta2 grows" in case:  # whose memory at step 10,000,300 is another one
        assert late is None or moved_back(late.evidence) != early.evidence
        return
    assert late is not None
    named = re.findall(r"(?:steps? |apart: |, )(\d{3,})\b", f"{late.evidence} {late.remedy}")
    assert all(int(step) > LATER for step in named)
    assert (moved_back(late.evidence), moved_back(late.remedy)) == (early.evidence, early.remedy)


def test_what_v_hat_did_before_the_first_step_known_is_not_claimed():
    history = half_known(with_what_was_seen(growth(quiet=0.05), [reading(290, 1.4)]))
    for one in (history, later(history)):
        onset = Onset(one, ONSET - 250 + one.n_before)
        assert onset.growth_by_v_hat(one.n_before, one.n_before + 30) is None
        assert onset.growth_by_v_hat(one.n_before + 1, one.n_before + 30) is not None


def test_the_learning_rate_of_the_remedy_is_that_of_its_step():
    rates = [1e-3] * 295 + [5e-4] * 8
    history = with_what_was_seen(
        history_of(growth().losses, list(growth().gradient_norms), rates[: len(growth().losses)]),
        [reading(260, 0.5), reading(300, 1.1, foreseen=0.55)],
    )
    finding = sharpening_landscape.find(Onset(later(history), ONSET + LATER))
    assert "Lower the learning rate from 0.0005 to" in finding.remedy
