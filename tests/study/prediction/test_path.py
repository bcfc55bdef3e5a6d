"""Path lengths against plain sums, and what they foretell where the rate changes along the way."""

import dataclasses
import math

import numpy as np
import pytest

from stabletune.schedules import lr_factor
from stabletune.study.prediction.path import path_length
from stabletune.study.prediction.speed import Speed
from tests.study.prediction.seen import power_law, rate_at, seen

FULL = 2500


def summed(schedule, steps, warmup):
    return sum(lr_factor(schedule, step, warmup_steps=warmup, full_steps=FULL) for step in range(steps))


def run_under(schedule, share, n_steps, warmup=0, law=power_law):
    """A run whose log loss is a function of the plain sum of its rates."""
    steps = [step for step in (39, 78, 156, 312, n_steps) if step <= n_steps]
    curve = [(step, law(rate_at(share) * summed(schedule, step, warmup))) for step in steps]
    return dataclasses.replace(seen(rate_at(share), (share,), n_steps, curve=curve), warmup_steps=warmup)


def test_at_a_constant_rate_the_path_is_the_rate_times_the_steps():
    steps = [1, 7, 39, 1000, FULL]
    found = path_length(0.02, steps, schedule="constant", warmup_steps=0, full_steps=FULL)
    np.testing.assert_allclose(found, 0.02 * np.array(steps))


@pytest.mark.parametrize("warmup", [0, 50, 250])
@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear", "wsd"])
def test_the_path_is_the_plain_sum_of_the_rates_within_one_percent_once_warm(schedule, warmup):
    steps = [max(100, 2 * warmup), 625, 1250, 2200, FULL]
    expected = [0.01 * summed(schedule, step, warmup) for step in steps]
    found = path_length(0.01, steps, schedule=schedule, warmup_steps=warmup, full_steps=FULL)
    np.testing.assert_allclose(found, expected, rtol=0.01)


def test_paths_are_proportional_to_the_rate_and_never_shrink():
    given = {"schedule": "cosine", "warmup_steps": 100, "full_steps": FULL}
    steps = np.arange(1, FULL + 1, 13)
    one, ten = path_length(1e-3, steps, **given), path_length(1e-2, steps, **given)
    np.testing.assert_allclose(ten, 10.0 * one)
    assert np.all(np.diff(one) >= 0.0)


def test_before_its_first_step_a_run_has_come_a_little_so_that_the_logarithm_exists():
    assert path_length(1e-3, 0, schedule="cosine", warmup_steps=100, full_steps=FULL) > 0.0


@pytest.mark.parametrize("schedule", ["cosine", "linear", "wsd"])
def test_under_a_decay_too_short_trials_foretell_the_full_horizon_of_slow_ones(schedule):
    trials = [run_under(schedule, share, 500) for share in (0.2, 0.35, 0.5, 0.65, 0.8, 0.95)]
    speed = Speed(trials, schedule=schedule, full_steps=FULL)
    errors, gaps = [], []
    for slow in trials[1:4]:
        reached = power_law(slow.lr * summed(schedule, FULL, 0))
        errors.append(abs(speed.log_losses([slow], FULL)[0, 0] - reached))
        gaps.append(abs(slow.curve[-1][1] - reached))
    assert max(errors) < 0.25
    assert np.mean(errors) < 0.2 * np.mean(gaps)


def test_a_warm_up_that_the_path_knows_of_does_not_make_a_setting_look_slow():
    trials = [run_under("constant", share, 500) for share in (0.2, 0.4, 0.6, 0.8, 1.0)]
    warming = run_under("constant", 0.5, 500, warmup=250)
    speed = Speed([*trials, warming], schedule="constant", full_steps=FULL)
    without = dataclasses.replace(warming, warmup_steps=0)
    late, early = speed.log_losses([warming, without], FULL)[:, 0]
    behind = power_law(warming.lr * summed("constant", FULL, 250)) - power_law(warming.lr * FULL)
    assert late - early == pytest.approx(behind, abs=0.05)
    assert late == pytest.approx(power_law(warming.lr * summed("constant", FULL, 250)), abs=0.25)


def test_predictions_move_with_the_units_of_the_loss():
    shift = math.log(1000.0)
    plain = [run_under("constant", share, 500) for share in (0.3, 0.6, 0.9)]
    scaled = [run_under("constant", share, 500, law=lambda path: power_law(path) + shift) for share in (0.3, 0.6, 0.9)]
    steps = [100, 800, FULL]
    one = Speed(plain, schedule="constant", full_steps=FULL).log_losses(plain, steps)
    other = Speed(scaled, schedule="constant", full_steps=FULL).log_losses(scaled, steps)
    np.testing.assert_allclose(other, one + shift, atol=1e-6)


def test_the_speed_model_is_gaussian_regression_written_out():
    runs = [run_under("constant", share, 500) for share in (0.3, 0.7)]
    x = np.array([(math.log(run.lr * step), run.place[0]) for run in runs for step, _ in run.curve])
    y = np.array([value for run in runs for _, value in run.curve])

    def kernel(a, b):
        near = ((a[:, None] - b[None]) / [1.0, 0.5]) ** 2
        far = ((a[:, None] - b[None]) / [4.0, 2.0]) ** 2
        return np.exp(-near.sum(-1) / 2.0) + 4.0 * np.exp(-far.sum(-1) / 2.0)

    weights = np.linalg.solve(kernel(x, x) + 0.05 * np.eye(len(x)), (y - y.mean()) / y.std())
    at = np.array([(math.log(runs[0].lr * FULL), 0.3)])
    expected = y.mean() + y.std() * float((kernel(at, x) @ weights)[0])
    found = Speed(runs, schedule="constant", full_steps=FULL).log_losses(runs[:1], FULL)[0, 0]
    assert found == pytest.approx(expected)
