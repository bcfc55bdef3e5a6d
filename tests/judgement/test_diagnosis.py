"""One diagnosis for each spike; unexplained where no evidence is."""

import dataclasses
import math

import pytest

from stabletune.judgement.causes import load_causes
from stabletune.judgement.diagnosis import diagnose, diagnose_step
from stabletune.judgement.onset import Onset
from tests.judgement.histories import ONSET, blow, calm, growth, history_of, look, reading


def test_a_calm_history_has_no_diagnosis():
    assert diagnose(history_of(calm())) == ()


def test_each_episode_has_its_own_diagnosis():
    losses = calm(600)
    losses[300], losses[500] = 6.0, 7.0
    found = diagnose(history_of(losses, losses))
    assert [d.step for d in found] == [301, 501]
    assert {d.cause for d in found} == {"unexplained"}


def test_a_divergence_outside_an_episode_has_one_and_one_that_a_spike_led_to_has_not():
    history = history_of([*calm(), math.nan])
    history.inspections.append(look(math.nan, [math.nan], has_finite_inputs=True))
    (alone,) = diagnose(history)
    assert (alone.step, alone.cause) == (ONSET, "precision or overflow")
    rates = [1e-3] * 300 + [1.0] * 5
    (led_to,) = diagnose(history_of([*calm(), 5.0, 50.0, 1e4, 1e9, math.inf], rates=rates))
    assert (led_to.step, led_to.cause) == (ONSET, "schedule jump")


def test_a_blow_without_any_other_sign_is_unexplained_and_says_so():
    (found,) = diagnose(blow())
    assert found.cause == "unexplained" and "came in one step" in found.evidence
    assert "every: 1" in found.remedy


def test_where_every_step_was_measured_no_closer_measuring_is_advised():
    history = blow()
    history.spec = dataclasses.replace(history.spec, every=1, overhead=None)
    (found,) = diagnose(history)
    assert "every" not in found.remedy and f"look at the data of step {ONSET}" in found.remedy


def test_a_growth_without_readings_says_which_are_missing():
    (found,) = diagnose(growth())
    assert found.cause == "unexplained" and "S was not read" in found.evidence


def test_a_growth_far_below_the_edge_says_how_high_s_was():
    history = growth()
    history.measurements.append(reading(290, 0.2))
    (found,) = diagnose(history)
    assert found.cause == "unexplained" and "sharpness_ratio at most 0.2" in found.evidence


def test_what_compares_comes_before_what_is_inferred():
    losses = [*calm(), 5.0, 4.0]
    history = history_of(losses, losses, [1e-3] * 299 + [1e-1] * 3)
    assert diagnose(history)[0].cause == "schedule jump"
    history.inspections.append(look(4.8, [1.0, 1.0]))
    assert diagnose(history)[0].cause == "bad batch"
    history.inspections[0] = look(4.8, [1.0, 1.0], precise_loss=1.0)
    assert diagnose(history)[0].cause == "precision or overflow"


def test_a_diagnosis_is_a_function_of_the_history_alone():
    history = growth()
    history.measurements += [reading(280, 0.98), reading(298, 1.03, foreseen=1.02)]
    assert diagnose(history) == diagnose(history)
    assert diagnose(history)[0].cause == "stale preconditioner"


@pytest.mark.parametrize("cause", load_causes(), ids=lambda cause: cause.NAME)
def test_a_cause_is_named_like_its_file(cause):
    assert cause.__name__.rpartition(".")[2] == cause.NAME.replace(" ", "_")


def test_what_is_unexplained_says_what_was_compared_and_how_it_came_out():
    history = blow()
    assert "float64" not in diagnose_step(history, ONSET).evidence
    assert "its batch was not looked at again" in diagnose_step(history, ONSET).evidence
    history.inspections.append(look(5.0, [4.9, 5.1], precise_loss=5.1))
    evidence = diagnose_step(history, ONSET).evidence
    assert "its batch's loss 1 times those of the 2 before under the same parameters, 5.1 in float64 for 5." in evidence
    history.inspections[0] = look(5.0, [1.0])
    history.inspections.append(look(5.0, [5.0, 5.1], step=ONSET + 10, is_repeat=True))
    assert "its batch's loss 5 times those of the 1 before" in diagnose_step(history, ONSET).evidence


@pytest.mark.parametrize("own", [5e-324, 1e-300, 1.0, 1e300, 1e308])
@pytest.mark.parametrize("other", [5e-324, 1e-300, 1.0, 1e300, 1e308])
@pytest.mark.parametrize("begin", [blow, growth])
def test_numbers_at_the_ends_of_float64_are_diagnosed_like_others(begin, own, other):
    history = begin()
    history.spec.params.update({"beta1": 0.9, "beta2": 0.999})
    history.measurements += [reading(ONSET - 40, own, other), reading(ONSET - 20, other, own), reading(ONSET, own, own)]
    looked = look(own, [other] * 3, norm=own, other_norm=other, precise_loss=other)
    inspected = dataclasses.replace(looked, suspect=dataclasses.replace(looked.suspect, loss_then=other))
    history.inspections.append(inspected)
    for found in (*diagnose(history), *[cause for cause in _each_cause(history) if cause is not None]):
        assert found.evidence.endswith(".") and found.remedy.endswith(".")


def _each_cause(history):
    return [cause.find(Onset(history, ONSET)) for cause in load_causes()]
