"""The guard's rule against its formula, and its state against a run that was never interrupted."""

import math

import numpy as np
import pytest

from stabletune.errors import LossFloorError
from stabletune.judgement.guard_policy import HELD_FOR, STANDS_OUT, GuardBounds, GuardPolicy
from stabletune.judgement.spikes import SpikeDetector
from tests.judgement.histories import calm


def replay(losses, norms=None, policy=None, **options):
    """Every decision over a run, and the factor on lr in force at each step."""
    policy = policy or GuardPolicy(**options)
    decisions, scales = [], []
    for loss, norm in zip(losses, norms or [1.0] * len(losses), strict=True):
        decisions.append(policy.before_step(norm))
        scales.append(policy.lr_scale)
        policy.after_step(loss)
    return [decision for decision in decisions if decision is not None], scales


def test_a_calm_run_is_left_alone():
    decisions, scales = replay(calm(500))
    assert decisions == []
    assert set(scales) == {1.0}


def test_lr_is_halved_at_each_step_whose_predecessor_stood_out_and_given_back_in_small_steps():
    losses = [*calm(200), 1.15, 1.2, *calm(200)]
    judge, scores = SpikeDetector(), []
    for loss in losses:
        scores.append(judge.update(loss))
    assert [n for n, score in enumerate(scores) if score > STANDS_OUT] == [200, 201]
    decisions, scales = replay(losses)
    assert scales[200:203] == [1.0, 0.5, 0.25]
    held = 202 + HELD_FOR
    assert scales[202 : held + 1] == [0.25] * (HELD_FOR + 1)
    assert scales[held + 1 : held + 4] == pytest.approx([0.25 * 1.01, 0.25 * 1.01**2, 0.25 * 1.01**3])
    n_steps_back = math.ceil(math.log(4.0) / math.log(1.01))
    assert scales[held + n_steps_back] == 1.0 and scales[held + n_steps_back - 1] < 1.0
    assert [decision.lr_scale for decision in decisions] == pytest.approx([0.5, 0.25, 0.2525, 1.0])
    assert [decision.beta2_cap for decision in decisions] == [0.9, 0.9, 0.9, None]
    assert f"limit {STANDS_OUT}" in decisions[0].reason


def test_it_never_goes_below_its_bounds():
    _, scales = replay([*calm(200), *[2.0] * 10, *calm(50)], bounds=GuardBounds(lr_scale=0.3, beta2=None))
    assert min(scales) == 0.3
    decisions, _ = replay([*calm(200), 2.0, 2.0, *calm(5)], bounds=GuardBounds(lr_scale=1.0, beta2=None))
    assert decisions == []


def test_beta2_is_capped_also_where_lr_is_to_be_left_alone():
    decisions, scales = replay([*calm(200), 2.0, *calm(200)], bounds=GuardBounds(lr_scale=1.0, beta2=0.95))
    assert set(scales) == {1.0}
    assert [decision.beta2_cap for decision in decisions] == [0.95, 0.95, None]
    assert decisions[0].reason.endswith(": cap beta2 at 0.95.")
    assert decisions[-1].step == 202 + HELD_FOR + math.ceil(math.log(2.0) / math.log(1.01))


def test_a_gradient_that_was_clipped_to_less_already_is_left_alone():
    policy = GuardPolicy()
    replay(calm(60), calm(60), policy=policy)
    assert policy.before_step(50.0, left_norm=1.0) is None
    assert policy.before_step(50.0, left_norm=0.0) is None
    policy.after_step(1.0)
    decision = policy.before_step(50.0, left_norm=10.0)
    assert decision.gradient_scale * 10.0 == pytest.approx(3.0 * np.median(calm(50)), rel=0.01)


def test_decisions_count_on_from_the_steps_a_training_has_behind_it():
    policy = GuardPolicy()
    policy.begin_after(7_000)
    decisions, _ = replay(calm(71), [*calm(60), 50.0, *calm(10)], policy=policy)
    assert [decision.step for decision in decisions] == [7_061]


def test_a_loss_that_is_not_finite_brakes():
    _, scales = replay([*calm(100), math.nan, 1.0])
    assert scales[-1] == 0.5


def test_a_gradient_that_leaps_is_scaled_to_three_times_the_usual():
    norms = [*calm(60), 50.0, *calm(10)]
    (decision,), _ = replay(calm(71), norms)
    assert decision.step == 61
    assert decision.gradient_scale * 50.0 == pytest.approx(3.0 * np.median(calm(50)))
    assert "leaps to 49.8 times its median" in decision.reason


def test_an_oscillation_that_grows_over_steps_is_no_leap():
    decisions, _ = replay(calm(80), [*calm(60), *[1.4**k for k in range(20)]])
    assert decisions == []


def test_leaps_do_not_become_usual():
    norms = calm(200)
    norms[60::12] = [50.0] * len(norms[60::12])
    decisions, _ = replay(calm(200), norms)
    assert [decision.step for decision in decisions] == list(range(61, 201, 12))


def test_a_norm_that_rises_for_good_is_limited_for_five_steps_and_then_left_alone():
    decisions, _ = replay(calm(1060), [*calm(60), *[50.0] * 1000])
    assert [decision.step for decision in decisions] == [61, 62, 63, 64, 65]


@pytest.mark.parametrize("nothing", [0.0, 5e-324, 1e-310])
def test_gradients_that_were_as_good_as_zero_make_the_first_other_no_leap(nothing):
    decisions, _ = replay(calm(80), [*[nothing] * 40, *calm(40)])
    assert decisions == []


@pytest.mark.parametrize(
    "change", [{"brake": -1.0}, {"brake": math.nan}, {"norms": None}, {"n_steps": -1}, {"recent_losses": ["x"]}]
)
def test_a_state_that_is_none_is_refused_and_changes_nothing(change):
    policy = GuardPolicy()
    replay(calm(70), calm(70), policy=policy)
    before = policy.state_dict()
    with pytest.raises(ValueError, match=r"state: must be what state_dict\(\) gave"):
        policy.load_state_dict({**before, **change})
    with pytest.raises(ValueError, match="KeyError"):
        policy.load_state_dict({})
    assert policy.state_dict() == before


def test_a_state_of_wider_bounds_comes_within_these():
    policy = GuardPolicy(GuardBounds(lr_scale=0.5))
    policy.load_state_dict({**GuardPolicy().state_dict(), "brake": 0.1})
    assert policy.lr_scale == 0.5


@pytest.mark.parametrize("bounds", [{"lr_scale": 0.5}, 3])
def test_what_are_no_bounds_is_refused(bounds):
    with pytest.raises(ValueError, match="bounds: must be None or GuardBounds"):
        GuardPolicy(bounds)


@pytest.mark.parametrize("floor", ["0", None, math.nan, math.inf, True])
def test_what_is_no_floor_is_refused(floor):
    with pytest.raises(ValueError, match="loss_floor: must be a finite number"):
        GuardPolicy(loss_floor=floor)


@pytest.mark.parametrize("norm", [math.nan, math.inf])
def test_a_norm_that_is_not_finite_is_no_leap_and_is_forgotten(norm):
    decisions, _ = replay(calm(100), [*calm(50), norm, *calm(49)])
    assert decisions == []


def test_gradients_may_be_left_alone():
    decisions, _ = replay(calm(71), [*calm(60), 50.0, *calm(10)], bounds=GuardBounds(limits_gradients=False))
    assert decisions == []


@pytest.mark.parametrize("cut", [5, 60, 130, 207, 250])
def test_a_policy_that_goes_on_from_its_state_decides_the_same(cut):
    rng = np.random.default_rng(0)
    losses = list(np.exp(rng.normal(0.0, 0.004, 400) - np.arange(400) / 200.0))
    losses[200:215] = [loss * 2.0 for loss in losses[200:215]]
    norms = list(np.exp(rng.normal(0.0, 0.3, 400)))
    norms[230] = 60.0
    whole, scales = replay(losses, norms)
    first, second = GuardPolicy(), GuardPolicy()
    before, _ = replay(losses[:cut], norms[:cut], policy=first)
    second.load_state_dict(first.state_dict())
    after, scales_after = replay(losses[cut:], norms[cut:], policy=second)
    assert len(whole) > 4
    assert before + after == whole
    assert scales_after == scales[cut:]


def test_a_loss_at_its_floor_is_an_error():
    policy = GuardPolicy(loss_floor=0.5)
    with pytest.raises(LossFloorError):
        policy.after_step(0.5)


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({"lr_scale": 0.0}, "lr_scale: 0 < lr_scale <= 1 must hold, but got 0.0"),
        ({"lr_scale": 1.5}, "lr_scale: 0 < lr_scale <= 1 must hold, but got 1.5"),
        ({"beta2": 1.0}, "beta2: 0 <= beta2 < 1 must hold, but got 1.0"),
    ],
)
def test_bounds_that_make_no_sense_are_refused(bounds, message):
    with pytest.raises(ValueError, match=message):
        GuardBounds(**bounds)
