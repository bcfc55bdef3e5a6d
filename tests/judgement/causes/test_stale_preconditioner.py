"""Stale preconditioner: all of S at its edge, a Hessian that stayed, a v̂ that outlived its gradients, a growth."""

import pytest

from stabletune.judgement.causes.stale_preconditioner import find
from stabletune.judgement.onset import Onset
from tests.judgement.histories import ONSET, blow, calm, growth, history_of, reading

EDGE = (reading(280, 0.98), reading(298, 1.03, foreseen=1.02))


def read(history, readings=EDGE):
    history.measurements += readings
    return Onset(history, ONSET)


def test_a_growth_at_the_edge_with_a_stale_v_hat_is_named_with_its_numbers():
    finding = find(read(growth(quiet=0.05)))
    assert "sharpness_ratio was 1.03 at step 298, and the raw curvature changed it 1.01 times" in finding.evidence
    assert "between steps 280 and 298" in finding.evidence
    assert "the instability grew over several steps" in finding.evidence
    assert finding.remedy.startswith("Lower beta2 from 0.999 to 0.9;")


def test_a_beta2_that_forgets_quickly_already_leaves_the_learning_rate():
    given = growth(quiet=0.05)
    history = history_of(given.losses, given.gradient_norms, beta2=0.9, lr=0.01)
    assert find(read(history)).remedy == "Lower lr from 0.01 to 0.005."


def test_s_may_be_far_above_the_edge_where_two_readings_clear_the_hessian():
    assert find(read(growth(quiet=0.05), (reading(280, 1.3), reading(298, 1.4, foreseen=1.38)))) is not None


@pytest.mark.parametrize(
    "onset",
    [
        read(growth(quiet=1.0)),
        read(growth(quiet=0.05), ()),
        read(growth(quiet=0.05), (reading(298, 0.6),)),
        read(growth(quiet=0.05), (reading(280, 0.5), reading(298, 1.03, foreseen=0.6))),
        read(growth(quiet=0.05), (reading(298, 1.6),)),
        read(blow()),
        read(history_of([*calm(), 1.6])),
    ],
    ids=["a fresh v", "no reading", "below the edge", "the Hessian moved", "far above", "in one step", "no gradients"],
)
def test_without_any_part_of_its_evidence_v_hat_is_not_blamed(onset):
    assert find(onset) is None
