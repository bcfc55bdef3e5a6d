"""Precision or overflow: what float64 does not confirm, and what stops being finite in one step."""

import dataclasses
import math
from array import array

import pytest

from stabletune.judgement.causes.precision_or_overflow import find
from stabletune.judgement.onset import Onset
from tests.judgement.histories import ONSET, blow, calm, history_of, look


def diverged(*looks, before=(), norms=None):
    history = history_of([*calm(ONSET - 1 - len(before)), *before, math.inf], norms)
    history.inspections += looks
    return Onset(history, ONSET)


def test_a_loss_that_is_finite_in_float64_overflowed():
    finding = find(diverged(look(math.inf, [1.0], precise_loss=1.02, lowest_precision="float16")))
    assert "1.02 when the same forward pass is computed in float64" in finding.evidence
    assert finding.remedy.startswith("Compute in bfloat16 instead of float16")


def test_a_finite_loss_is_imprecise_if_float64_undoes_half_of_its_jump():
    history = blow()
    history.inspections.append(look(5.0, [5.0], precise_loss=1.1))
    assert find(Onset(history, ONSET)) is not None
    for undoes_little in (4.9, 25.0):
        history.inspections[0] = look(5.0, [5.0], precise_loss=undoes_little)
        assert find(Onset(history, ONSET)) is None


@pytest.mark.parametrize("norm", [math.inf, math.nan])
def test_a_gradient_that_stops_being_finite_before_the_loss_does(norm):
    norms = [*calm(ONSET - 2), norm, math.nan]
    finding = find(diverged(norms=norms))
    assert "at step 300" in finding.evidence and "its gradient was not finite" in finding.evidence


def test_a_usual_loss_that_is_infinite_one_step_later():
    seen = look(math.inf, [math.inf], precise_loss=math.inf, has_finite_inputs=True)
    assert "in one step, without growing before" in find(diverged(seen)).evidence


@pytest.mark.parametrize(
    "onset",
    [
        diverged(before=(2.0, 8.0, 100.0)),
        diverged(look(math.inf, [1.0], precise_loss=math.inf)),
        diverged(look(math.inf, [math.inf], precise_loss=math.inf, has_finite_inputs=False)),
        diverged(look(math.inf, [math.inf], precise_loss=math.inf, has_finite_inputs=None)),
        diverged(),
        Onset(blow(), ONSET),
    ],
    ids=[
        "it grew before",
        "others are finite",
        "the batch is not finite",
        "the batch is not seen",
        "nothing is seen",
        "the loss is finite",
    ],
)
def test_without_its_evidence_the_arithmetic_is_not_blamed(onset):
    assert find(onset) is None


def test_a_loss_that_had_left_for_ever_before_its_format_ended_is_no_matter_of_precision():
    assert find(diverged(look(math.inf, [math.inf], precise_loss=1e38, has_finite_inputs=True), before=(50.0,))) is None


def test_a_jump_of_the_learning_rate_comes_first():
    history = history_of([*calm(), math.inf], rates=[1e-3] * (ONSET - 1) + [1.0])
    assert find(Onset(history, ONSET)) is None


def test_a_recorded_loss_that_is_finite_when_computed_again_is_the_arithmetics():
    assert find(diverged(look(1.0, [1.0], precise_loss=1.0))) is not None


def test_gradients_of_exactly_zero_are_the_formats_only_where_it_is_narrow():
    history = history_of([*calm(), 1.3], calm(ONSET - 10) + [0.0] * 10)
    seen = look(1.3, [1.3], precise_loss=1.3, lowest_precision="float16", norm=0.0)
    history.inspections.append(seen)
    assert "every gradient was exactly zero" in find(Onset(history, ONSET)).evidence
    history.inspections[0] = dataclasses.replace(seen, lowest_precision="float32")
    assert find(Onset(history, ONSET)) is None


def test_gradients_that_a_loop_zeroed_before_they_were_recorded_are_no_underflow():
    history = history_of([*calm(), 1.3], calm(ONSET - 10) + [0.0] * 10)
    history.inspections.append(look(1.3, [1.3], precise_loss=1.3, lowest_precision="float16", norm=2.0))
    assert find(Onset(history, ONSET)) is None


def test_losses_are_shown_as_they_are_not_above_their_floor():
    history = history_of([*calm(), math.nan], [*calm(), math.nan])
    history.losses[:] = array("d", [loss - 10.0 for loss in history.losses])
    history.spikes.loss_floor = -10.0
    history.inspections.append(look(math.nan, [math.nan], has_finite_inputs=True))
    assert "the loss went from -8.99 (usual: -8.995) to nan" in find(Onset(history, ONSET)).evidence
