"""Sharpening landscape: the Hessian's part of the climb, or S far above the edge."""

import pytest

from stabletune.judgement.causes.sharpening_landscape import find
from stabletune.judgement.onset import Onset
from tests.judgement.histories import ONSET, blow, growth, look, reading


def read(*readings, history=None):
    history = history or growth()
    history.measurements += readings
    return Onset(history, ONSET)


def test_a_hessian_that_doubled_s_is_named_with_both_parts():
    finding = find(read(reading(260, 0.5), reading(300, 1.1, foreseen=0.55)))
    assert (
        "the raw curvature raised sharpness_ratio 2 times, v_hat and the learning rate changed it 1.1"
        in finding.evidence
    )
    assert "Lower the learning rate from 0.001 to 0.00064" in finding.remedy


def test_s_may_stay_below_the_edge_while_gradients_refill_v_hat():
    assert find(read(reading(260, 0.8), reading(300, 0.8, foreseen=0.1))) is not None


def test_without_a_recent_pair_of_readings_s_far_above_the_edge_with_a_v_hat_that_did_not_fall():
    history = growth(quiet=1.0)
    assert find(read(reading(290, 1.4), history=history)) is not None
    assert find(read(reading(290, 1.4), history=growth(quiet=0.05))) is None


@pytest.mark.parametrize(
    "onset",
    [
        read(),
        read(reading(260, 0.9), reading(300, 1.04, foreseen=1.03)),
        read(reading(260, 0.1), reading(300, 0.3, foreseen=0.1)),
        read(reading(260, 0.5), reading(300, 1.1, foreseen=0.55), history=blow()),
    ],
    ids=["no reading", "the Hessian stayed", "far below the edge", "it came in one step"],
)
def test_without_its_evidence_the_landscape_is_not_blamed(onset):
    assert find(onset) is None


def test_a_loss_that_changed_for_good_sharpened_if_s_was_read_higher_right_after():
    history = blow()
    history.inspections += [look(5.0, [1.0]), look(5.0, [5.0], step=ONSET + 10, is_repeat=True)]
    assert find(read(reading(ONSET, 3.0, foreseen=0.5), history=history)) is not None
    history.measurements[:] = [reading(ONSET, 0.5, foreseen=0.5)]
    assert find(Onset(history, ONSET)) is None
