"""Logit growth: twice what was seen before, while the loss was still usual."""

import pytest

from stabletune.judgement.causes.logit_growth import find
from stabletune.judgement.onset import Onset
from tests.judgement.histories import ONSET, blow, growth, look, reading


def seen(looks, history=None):
    history = history or growth()
    history.measurements += [reading(step, None, logits=values) for step, values in looks]
    return Onset(history, ONSET)


def test_output_logits_that_tripled_are_named_with_their_numbers():
    finding = find(seen([(200, (5.0, 9.0)), (230, (5.0, 10.0)), (295, (5.0, 30.0))]))
    assert "largest output logit was 30 at step 295, 3 times its largest value" in finding.evidence
    assert "z-loss" in finding.remedy


def test_attention_logits_have_a_remedy_of_their_own():
    finding = find(seen([(200, (5.0, 9.0)), (295, (50.0, 9.0))]))
    assert "softmax 1 of 2" in finding.evidence and "queries and keys" in finding.remedy


@pytest.mark.parametrize(
    "looks",
    [
        [],
        [(295, (300.0,))],
        [(200, (300.0,)), (295, (320.0,))],
        [(200, (1.0,)), (295, (4.0,))],
        [(100, (9.0,)), (230, (90.0,))],
        [(200, (9.0,)), (300, (90.0,))],
    ],
    ids=["none", "no earlier look", "large but steady", "small", "not since", "only at the spike itself"],
)
def test_without_its_evidence_logits_are_not_blamed(looks):
    assert find(seen(looks)) is None


def test_young_logits_that_double_by_learning_do_not_explain_a_blow():
    assert find(seen([(200, (5.0, 9.0)), (295, (5.0, 30.0))], blow())) is None


def test_logits_at_the_onset_count_if_they_tripled_in_a_rise_that_grew():
    onset = seen([(200, (9.0,))])
    onset.history.inspections.append(look(5.0, [5.0], largest_logits=(40.0,)))
    assert find(onset) is not None
    sudden = seen([(200, (9.0,))], blow())
    sudden.history.inspections.append(look(5.0, [5.0], largest_logits=(40.0,)))
    assert find(sudden) is None
