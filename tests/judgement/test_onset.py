"""How a spike began: shares of a rise, v̂ from gradient norms, and what moved S."""

import dataclasses
import math

import pytest

from stabletune.judgement.onset import Onset
from stabletune.records import BatchLook
from tests.judgement.histories import ONSET, blow, calm, growth, history_of, look, reading


def test_a_blow_rises_in_one_step_and_an_instability_in_many():
    assert Onset(blow(), ONSET).sudden_share == pytest.approx(1.0, abs=0.02)
    assert Onset(blow(), ONSET).is_sudden
    grown = Onset(growth(), ONSET)
    assert grown.sudden_share < 0.3 and not grown.is_sudden


def test_without_gradient_norms_the_losses_tell_how_sudden_a_rise_was():
    assert Onset(history_of([*calm(), 5.0]), ONSET).is_sudden
    slow = history_of([*calm(295), *(1.0 + 0.1 * 1.5**k for k in range(6))])
    assert not Onset(slow, 301).is_sudden


def test_a_loss_that_jumps_while_its_gradient_rises_slowly_is_sudden():
    norms = [*calm(200), *(1.0 * 1.02**k for k in range(101))]
    assert Onset(history_of([*calm(), 6.0], norms), ONSET).is_sudden


def test_a_jump_that_the_same_batch_does_not_show_one_step_later_is_sudden():
    history = history_of([*calm(296), *(1.0 * 1.3**k for k in range(6))], calm(302))
    history.inspections.append(look(1.0, [1.0]))
    assert Onset(history, ONSET).is_undone and Onset(history, ONSET).is_sudden


def test_an_oscillation_whose_loss_falls_at_every_second_step_is_not_undone():
    history = growth()
    history.inspections.append(look(1.0, [1.0]))
    assert not Onset(history, ONSET).is_undone and not Onset(history, ONSET).is_sudden


def test_v_hat_from_gradient_norms_follows_the_closed_form_of_a_decay():
    history = history_of(calm(200), [1.0] * 100 + [0.0] * 100, beta2=0.99)
    v_hat = Onset(history, 200).v_hat
    assert v_hat[99] == pytest.approx(1.0)
    assert v_hat[199] == pytest.approx(0.99**100 * (1 - 0.99**100) / (1 - 0.99**200))
    fallen = Onset(history, 200).growth_by_v_hat(100, 200)
    assert fallen == pytest.approx(0.5 * math.log(v_hat[99] / v_hat[199]))


def test_the_stalest_step_is_where_the_gradients_were_smallest_against_v_hat():
    step, staleness = Onset(growth(quiet=0.05), ONSET).stalest
    assert 201 <= step <= 289
    assert staleness > 100


def test_the_climb_splits_log_s_into_the_hessian_and_the_rest():
    history = growth()
    history.measurements += [reading(260, 0.5), reading(280, 0.9, foreseen=0.6), reading(300, 1.2, foreseen=1.0)]
    by_hessian, by_rest, since, until = Onset(history, ONSET).climb
    assert by_hessian == pytest.approx(math.log(0.9 / 0.6 * 1.2 / 1.0))
    assert by_rest == pytest.approx(math.log(0.6 / 0.5 * 1.0 / 0.9))
    assert (since, until) == (260, 300)
    assert by_hessian + by_rest == pytest.approx(math.log(1.2 / 0.5))


def test_two_readings_far_apart_tell_nothing_of_a_recent_climb():
    history = growth()
    history.measurements += [reading(150, 0.5), reading(300, 1.2, foreseen=0.1)]
    assert Onset(history, ONSET).climb is None


def test_a_loss_has_changed_for_good_where_only_earlier_batches_differ():
    history = blow()
    history.inspections += [look(5.0, [1.0, 1.0]), look(5.0, [5.1, 4.9], step=ONSET + 10, is_repeat=True)]
    assert Onset(history, ONSET).has_changed_for_good
    history.inspections[-1] = look(5.0, [1.0], step=ONSET + 10, is_repeat=True)
    assert not Onset(history, ONSET).has_changed_for_good


def test_losses_count_from_their_floor():
    history = history_of([*calm(), 2.0])
    history.spikes.loss_floor = -1.0
    onset = Onset(history, ONSET)
    assert onset.jump == pytest.approx(math.log(3.0 / 2.005), abs=0.01)


def test_what_was_looked_at_again_counts_from_the_floor_too():
    history = blow()
    history.spikes.loss_floor = -1.0
    history.inspections.append(dataclasses.replace(look(-0.5, [-0.9, -0.8]), precise_loss=0.5))
    found, again = Onset(history, ONSET).inspections()
    assert again is None
    assert (found.suspect.loss, found.suspect.loss_then, found.precise_loss) == (0.5, 6.0, 1.5)
    assert [other.loss for other in found.others] == pytest.approx([0.1, 0.2])


def test_a_loss_that_was_at_its_floor_when_met_is_not_taken_for_undone():
    history = blow()
    history.inspections.append(
        dataclasses.replace(look(1.0, [1.0]), suspect=BatchLook(step=ONSET, loss_then=0.0, loss=1.0))
    )
    assert not Onset(history, ONSET).is_undone
