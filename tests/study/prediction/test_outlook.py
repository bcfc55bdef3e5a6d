import math
import tracemalloc

import numpy as np
import pytest

from stabletune.config import load_config
from stabletune.study.prediction.outlook import AT_ONCE, Outlook, remembered
from stabletune.study.prediction.pace import pace_limits
from stabletune.study.prediction.stability_map import lr_margin, stability_map
from tests.study.prediction.seen import power_law, run_of_law, seen

FULL, SHORT = ("full_steps: 150", "full_steps: 2500"), ("trial_steps: 60", "trial_steps: 500")
LONG = (FULL, SHORT)


def config_of(write_config, *changes):
    return load_config(write_config(*changes))


def both(run, beta2_share=0.5):
    """A run in the test config's space of lr and beta2."""
    return seen(run.lr, (run.place[0], beta2_share), run.steps, run.has_spiked, run.curve, run.risk, run.number)


def runs_of_law(shares=(0.2, 0.4, 0.6, 0.8)):
    return [both(run_of_law(share, 500, power_law)) for share in shares]


def test_a_trial_with_a_forecast_lies_between_the_model_and_it(write_config):
    outlook = Outlook(config_of(write_config, *LONG), runs_of_law())
    quiet, alarmed, neither = (seen(place=(0.5, 0.5), risk=risk) for risk in (0.01, 0.99, None))
    low, middle, high = outlook.survival([alarmed, neither, quiet])
    assert 0.01 < low < middle < high < 0.99
    assert middle == pytest.approx(outlook.boundary.survival([(0.5, 0.5)])[0])


def test_a_predicted_final_loss_is_the_law_at_the_full_horizon(write_config):
    outlook = Outlook(config_of(write_config, *LONG), runs_of_law())
    within = outlook.trials[:2]  # others come farther than any curve reaches
    values = outlook.values(within)
    expected = [power_law(run.lr * 2500) for run in within]
    np.testing.assert_allclose(values, expected, atol=0.2)


def test_the_mean_log_loss_is_predicted_over_the_whole_horizon(write_config):
    config = config_of(write_config, *LONG, ("budget:", "objective: {metric: loss_auc}\nbudget:"))
    outlook = Outlook(config, runs_of_law())
    run = outlook.trials[1]
    expected = np.mean([power_law(run.lr * step) for step in range(1, 2501)])
    assert outlook.values([run])[0] == pytest.approx(expected, abs=0.3)
    assert outlook.value_of(-1.5, run) == -1.5


def test_steps_to_a_target_are_where_the_predicted_curve_meets_it(write_config):
    run = runs_of_law()[2]
    target = math.exp(power_law(run.lr * 1000))
    config = config_of(
        write_config, *LONG, ("budget:", f"objective: {{metric: steps_to_target, target: {target}}}\nbudget:")
    )
    outlook = Outlook(config, runs_of_law())
    slow, fast = outlook.values([outlook.trials[0], run])
    assert math.exp(fast) == pytest.approx(1000, rel=0.25)
    assert slow > math.log(2 * 2500)


def test_an_eval_value_is_taken_as_it_is(write_config):
    outlook = Outlook(config_of(write_config, ("budget:", "objective: {source: eval}\nbudget:")), [])
    assert list(outlook.values([seen(objective=0.3), seen()])) == [0.3, math.inf]


def test_regret_is_nothing_for_the_best_and_one_for_not_having_trained(write_config):
    outlook = Outlook(config_of(write_config, *LONG), runs_of_law())
    assert list(outlook.regrets(np.array([-4.0, -2.0, 0.0]))) == [0.0, 0.5, 1.0]
    assert list(outlook.regrets(np.array([-4.0, -3.6, -2.0]), noise=0.5)) == [0.0, 0.0, 0.375]


@pytest.mark.parametrize("change", ["final_loss", "loss_auc", "steps_to_target, target: 0.5"])
def test_a_value_and_its_objective_are_inverses(write_config, change):
    outlook = Outlook(config_of(write_config, ("budget:", f"objective: {{metric: {change}}}\nbudget:")), [])
    assert outlook.objective_of(outlook.value_of(0.25, seen()), seen()) == pytest.approx(0.25)


def test_of_many_trials_the_newest_and_the_best_are_remembered():
    runs = [seen(number=n, curve=[(39, float(-n % 500))]) for n in range(1000)]
    kept = remembered(runs)
    assert len(kept) == 100
    assert {run.number for run in runs[-50:]} <= {run.number for run in kept}
    assert {run.number for run in kept if run.curve[0][1] < 20.0} >= {0, *range(481, 501)}
    assert remembered(runs[:100]) == runs[:100]


def test_the_pace_is_that_of_the_fastest_fifth_at_each_octave(write_config):
    runs = [both(run_of_law(share, 500, power_law)) for share in np.linspace(0.0, 0.3, 11)]
    limits = dict(pace_limits(config_of(write_config, *LONG), Outlook(config_of(write_config, *LONG), runs)))
    assert list(limits) == [39, 78, 156, 312]
    assert limits[156] == pytest.approx(math.exp(power_law(runs[8].lr * 156)), rel=1e-6)


def test_reckless_trials_do_not_set_the_pace_for_careful_ones(write_config):
    config = config_of(write_config, *LONG)
    careful = [both(run_of_law(share, 500, power_law)) for share in (0.1, 0.15, 0.2, 0.25, 0.3)]
    alone = pace_limits(config, Outlook(config, careful))
    spiked = [seen(0.05, (0.9, 0.5), 60, True, [(39, -9.0)]) for _ in range(20)]
    doomed = [seen(0.05, (0.9, 0.5), 500, False, [(s, -9.0) for s in (39, 78, 156, 312)]) for _ in range(5)]
    together = pace_limits(config, Outlook(config, [*careful, *spiked, *doomed]))
    assert together == alone


def test_there_is_no_pace_before_four_peers_nor_in_the_warm_up_nor_for_an_eval_value(write_config):
    config = config_of(write_config, *LONG)
    assert pace_limits(config, Outlook(config, runs_of_law((0.1, 0.2, 0.3)))) == ()
    runs = runs_of_law((0.1, 0.15, 0.2, 0.25))
    space = ("  beta2:", "  warmup_ratio: {low: 0.0, high: 0.04, scale: linear}\n  beta2:")
    warming = config_of(write_config, *LONG, space)
    wide = [seen(r.lr, (r.place[0], 0.5, 0.5), r.steps, False, r.curve) for r in runs]
    assert [step for step, _ in pace_limits(warming, Outlook(warming, wide))] == [156, 312]
    judged = config_of(write_config, *LONG, ("budget:", "objective: {source: eval}\nbudget:"))
    assert pace_limits(judged, Outlook(judged, runs)) == ()


def test_the_map_shows_survival_falling_with_the_rate_and_the_margin_where_it_is_one_half(write_config):
    config = config_of(write_config, *LONG)
    runs = [*runs_of_law((0.1, 0.2, 0.3, 0.4)), *(seen(0.05, (s, 0.5), 80, True) for s in (0.8, 0.9, 1.0))]
    outlook = Outlook(config, runs)
    drawn = stability_map(config, outlook, runs[0])
    assert drawn["names"] == ["lr", "beta2"]
    assert (drawn["x"][0], drawn["x"][-1]) == pytest.approx((1e-3, 1e-1))
    assert np.all(np.diff(np.array(drawn["survival"])[12]) <= 0.0)
    factor = lr_margin(config, outlook, seen(1e-3, (0.0, 0.5)))
    assert lr_margin(config, outlook, seen(1e-3, (0.0, 0.5), risk=0.001)) == factor  # the forecast is of its own place
    share = math.log(factor) / math.log(100.0)
    assert outlook.boundary.survival([[share, 0.5]])[0] == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("objective", ["{metric: final_loss}", "{metric: loss_auc}", "{source: eval}"])
def test_ten_thousand_runs_are_predicted_in_parts_as_each_by_itself(write_config, objective):
    config = config_of(write_config, *LONG, ("budget:", f"objective: {objective}\nbudget:"))
    outlook = Outlook(config, runs_of_law())
    runs = [both(run_of_law(share, 500, power_law)) for share in np.linspace(0.1, 0.9, 2 * AT_ONCE + 1)]
    few = [runs[n] for n in (0, AT_ONCE - 1, AT_ONCE, 2 * AT_ONCE)]
    values, survival = outlook.values(runs), outlook.survival(runs)
    assert values.shape == survival.shape == (len(runs),)
    np.testing.assert_allclose(values[[0, AT_ONCE - 1, AT_ONCE, -1]], outlook.values(few), rtol=1e-9)
    np.testing.assert_allclose(survival[[0, AT_ONCE - 1, AT_ONCE, -1]], outlook.survival(few), rtol=1e-9)


def test_predicting_many_runs_takes_no_memory_for_all_of_them_at_once(write_config):
    config = config_of(write_config, *LONG, ("budget:", "objective: {metric: loss_auc}\nbudget:"))
    outlook = Outlook(config, [both(run_of_law(share, 500, power_law)) for share in np.linspace(0.1, 0.9, 20)])
    runs = outlook.trials * (AT_ONCE // 20 + 1)
    outlook.values(runs)
    of_a_part, of_many = peak(lambda: outlook.values(runs)), peak(lambda: outlook.values(runs * 5))
    assert of_many < 1.5 * of_a_part


def peak(action):
    """The most that was allocated while it ran, in bytes."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
