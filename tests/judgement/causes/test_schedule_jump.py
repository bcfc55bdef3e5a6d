"""Schedule jump: a learning rate that rose at once, and no warm-up."""

from array import array

import pytest

from stabletune.judgement.causes.schedule_jump import find
from stabletune.judgement.onset import Onset
from tests.judgement.histories import ONSET, calm, growth, history_of


def with_rates(rates, tail=(5.0, 4.0)):
    losses = [*calm(), *tail]
    return history_of(losses, losses, rates + [rates[-1]] * (len(losses) - len(rates)))


def test_a_jump_right_before_the_onset_is_named_with_its_numbers():
    finding = find(Onset(with_rates([1e-3] * 295 + [1e-2]), ONSET))
    assert "from 0.001 to 0.01 (10 times) at step 296, 5 steps before" in finding.evidence
    assert "over 500 steps" in finding.remedy


def test_a_steep_rise_over_three_steps_is_a_jump_too():
    assert find(Onset(with_rates([1e-3] * 295 + [2e-3, 4e-3, 8e-3]), ONSET)) is not None


def test_a_restart_from_a_rate_of_zero_is_a_jump():
    finding = find(Onset(with_rates([1e-2] * 200 + [0.0] * 95 + [1e-2]), ONSET))
    assert "from 0 to 0.01 at step 296, 5 steps before" in finding.evidence


@pytest.mark.parametrize("n_warmup", [10, 100, 300, 600])
def test_a_linear_warm_up_is_no_jump(n_warmup):
    rates = [1e-2 * min(1.0, (step + 1) / n_warmup) for step in range(ONSET + 1)]
    assert find(Onset(with_rates(rates), ONSET)) is None


def test_a_falling_or_constant_rate_is_no_jump():
    assert find(Onset(with_rates([1e-2] * 280 + [1e-3]), ONSET)) is None
    assert find(Onset(with_rates([1e-3]), ONSET)) is None


def test_a_jump_long_before_explains_neither_a_blow_nor_a_growth():
    assert find(Onset(with_rates([1e-3] * 260 + [1e-2]), ONSET)) is None
    history = growth()
    history.learning_rates[200:] = array("d", [1e-2] * (len(history.losses) - 200))
    assert find(Onset(history, ONSET)) is None


def test_a_growth_may_begin_later_than_a_blow():
    history = growth()
    history.learning_rates[260:] = array("d", [1e-2] * (len(history.losses) - 260))
    assert find(Onset(history, ONSET)) is not None
