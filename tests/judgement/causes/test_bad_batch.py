"""Bad batch: what stands out from the others under the same parameters, and again."""

import math

import pytest

from stabletune.judgement.causes.bad_batch import find
from stabletune.judgement.onset import Onset
from tests.judgement.histories import ONSET, blow, calm, growth, history_of, look


def inspected(*looks):
    history = blow()
    history.inspections += looks
    return Onset(history, ONSET)


def again(suspect, others, **changes):
    return look(suspect, others, step=ONSET + 10, is_repeat=True, **changes)


def test_a_batch_whose_loss_stands_out_twice_is_bad():
    finding = find(inspected(look(4.8, [1.0, 1.1, 0.9]), again(4.0, [1.0, 1.0])))
    assert "batch of step 301 has loss 4.8" in finding.evidence and "again at step 311: 4" in finding.evidence
    assert "drop the batch of step 301" in finding.remedy


def test_a_batch_whose_gradient_alone_stands_out_twice_is_bad():
    assert find(inspected(look(1.0, [1.0], norm=30.0), again(1.0, [1.0], norm=20.0))) is not None


@pytest.mark.parametrize(
    "looks",
    [
        [],
        [look(5.0, [])],
        [look(5.0, [5.0, 4.8])],
        [look(5.0, [1.0]), again(5.0, [5.0, 5.1])],
        [look(1.0, [1.0], norm=3.0)],
    ],
    ids=["no look", "no others", "all are high", "those after it are as high", "a gradient three times theirs"],
)
def test_without_its_evidence_no_batch_is_blamed(looks):
    assert find(inspected(*looks)) is None


def test_a_hard_batch_in_a_rise_that_took_several_steps_is_not_bad():
    history = growth()
    history.inspections += [look(4.8, [1.0, 1.1]), again(4.8, [1.0])]
    assert find(Onset(history, ONSET)) is None


def test_a_batch_that_ends_the_trial_is_judged_by_the_first_look():
    assert find(inspected(look(4.8, [1.0, 1.1]))) is not None


def test_of_a_loss_that_is_not_finite_the_batch_is_to_blame_if_others_are_finite():
    history = history_of([*calm(), math.nan])
    history.inspections.append(look(math.nan, [1.0, 1.1], precise_loss=math.nan))
    assert "not finite, and drop it" in find(Onset(history, ONSET)).remedy
    assert "also in float64" in find(Onset(history, ONSET)).evidence
    history.inspections[0] = look(math.nan, [1.0, 1.1])
    assert "float64" not in find(Onset(history, ONSET)).evidence
    history.inspections[0] = look(math.nan, [math.nan, math.nan], precise_loss=math.nan)
    assert find(Onset(history, ONSET)) is None


def test_single_high_losses_at_one_distance_are_one_batch():
    losses = calm(400)
    for step in (301, 317, 333, 349):
        losses[step - 1] = 5.0
    finding = find(Onset(history_of(losses), ONSET))
    assert "every 16 steps" in finding.remedy
    losses[340] = 5.0
    assert find(Onset(history_of(losses), ONSET)) is None


def test_a_plateau_of_high_losses_is_no_cycle():
    assert find(Onset(history_of(calm() + [5.0] * 60), ONSET)) is None


@pytest.mark.parametrize(
    ("clip", "advised"), [(None, "set max_grad_norm: 1 "), (5.0, "set max_grad_norm: 1 "), (0.5, "clip in force")]
)
def test_the_remedy_is_a_clip_at_the_usual_norm_unless_a_stricter_one_is_in_force(clip, advised):
    history = history_of([*calm(), 5.0, 4.0], max_grad_norm=clip)
    history.inspections.append(look(4.8, [1.0]))
    assert advised in find(Onset(history, ONSET)).remedy


def test_without_the_usual_norm_no_clip_is_spoken_of():
    history = history_of([*calm(), 5.0, 4.0])
    history.inspections.append(look(4.8, [1.0], other_norm=None))
    assert find(Onset(history, ONSET)).remedy == f"Inspect or drop the batch of step {ONSET}."
