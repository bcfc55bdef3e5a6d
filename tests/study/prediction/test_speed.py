import numpy as np
import pytest

from stabletune.schedules import lr_factor
from stabletune.study.prediction.path import path_length
from stabletune.study.prediction.speed import Speed
from tests.study.prediction.seen import power_law, run_of_law, seen

FULL = 2500


@pytest.mark.parametrize(("schedule", "warmup"), [("constant", 0), ("constant", 200), ("cosine", 100), ("wsd", 0)])
def test_the_path_is_the_sum_of_the_rates_of_the_steps(schedule, warmup):
    factors = [lr_factor(schedule, step, warmup_steps=warmup, full_steps=FULL) for step in range(FULL)]
    steps = np.array([50, 500, 1250, 2400, FULL])
    found = path_length(0.01, steps, schedule=schedule, warmup_steps=warmup, full_steps=FULL)
    np.testing.assert_allclose(found, 0.01 * np.cumsum(factors)[steps - 1], rtol=0.03)


def test_short_trials_at_high_rates_foretell_the_full_horizon_of_a_low_one():
    trials = [run_of_law(share, 500, power_law) for share in (0.2, 0.35, 0.5, 0.65, 0.8, 0.95)]
    speed = Speed(trials, schedule="constant", full_steps=FULL)
    for slow in trials[:4]:
        predicted = float(speed.log_losses([slow], FULL)[0, 0])
        assert abs(predicted - power_law(slow.lr * FULL)) < 0.25
    assert abs(trials[3].curve[-1][1] - power_law(trials[3].lr * FULL)) > 1.5  # where its own trial ended


def test_what_the_rate_changes_besides_is_left_to_the_place():
    def floor(share, path):
        return max(power_law(path), -3.0 - 6.0 * (1.0 - share))

    trials = [run_of_law(s, 500, lambda path, s=s: floor(s, path)) for s in np.linspace(0.1, 1.0, 10)]
    full = [run_of_law(s, FULL, lambda path, s=s: floor(s, path)) for s in (0.5, 0.9)]
    speed = Speed([*trials, *full], schedule="constant", full_steps=FULL)
    predicted = {run.place[0]: float(speed.log_losses([run], FULL)[0, 0]) for run in trials}
    best = min(predicted, key=predicted.get)
    assert best == pytest.approx(min(predicted, key=lambda s: floor(s, run_of_law(s, 1, power_law).lr * FULL)), abs=0.2)


def test_a_run_without_a_curve_is_left_out():
    one = run_of_law(0.5, 500, power_law)
    with_it = Speed([one, seen(steps=3, spiked=True)], schedule="constant", full_steps=FULL)
    without = Speed([one], schedule="constant", full_steps=FULL)
    np.testing.assert_allclose(with_it.log_losses([one], [100, 2500]), without.log_losses([one], [100, 2500]))
