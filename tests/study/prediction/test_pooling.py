"""Survival pooled from model and forecast, and regrets at the ends of their scales."""

import math

import numpy as np
import pytest

from stabletune.config import load_config
from stabletune.study.prediction.outlook import Outlook, remembered, sampled
from tests.study.prediction.seen import seen

TRIALS = [seen(place=(share, 0.5), steps=60, curve=[(39, -share)]) for share in (0.1, 0.4, 0.8)]


def outlook_of(write_config, objective=None, trials=TRIALS, proofs=()):
    change = [("budget:", f"objective: {{{objective}}}\nbudget:")] if objective else []
    return Outlook(load_config(write_config(*change)), trials, proofs)


@pytest.mark.parametrize("risk", [0.05, 0.3, 0.9])
def test_odds_are_pooled_as_a_weighted_geometric_mean(write_config, risk):
    outlook = outlook_of(write_config)
    model = outlook.boundary.survival([(0.4, 0.5)])[0]
    odds = (model / (1.0 - model)) ** 0.65 * ((1.0 - risk) / risk) ** 0.35
    found = outlook.survival([seen(place=(0.4, 0.5), risk=risk)])[0]
    assert found == pytest.approx(odds / (1.0 + odds))
    assert min(model, 1.0 - risk) < found < max(model, 1.0 - risk)


def test_a_forecast_that_is_certain_does_not_outvote_the_model_without_limit(write_config):
    doomed, saved = outlook_of(write_config).survival([seen(place=(0.4, 0.5), risk=risk) for risk in (1.0, 0.0)])
    assert 0.0 < doomed < 0.5 < saved < 1.0


def test_of_no_settings_nothing_is_asked(write_config):
    outlook = outlook_of(write_config, trials=())
    assert outlook.survival([]).size == outlook.values([]).size == 0


def test_the_runs_of_a_proof_teach_the_boundary_what_short_trials_cannot(write_config):
    proofs = [seen(place=(0.8, 0.5), steps=120, spiked=True), seen(place=(0.8, 0.45), steps=130, spiked=True)]
    before = outlook_of(write_config).survival([TRIALS[2]])[0]
    assert outlook_of(write_config, proofs=proofs).survival([TRIALS[2]])[0] < 0.7 * before


def test_for_an_eval_objective_the_median_that_was_seen_stands_for_not_having_trained(write_config):
    trials = [seen(place=(0.4, 0.5), objective=value) for value in (0.2, 1e6, None, 0.4)]
    outlook = outlook_of(write_config, "source: eval", trials)
    assert outlook.untrained == 0.4
    assert list(outlook.regrets(outlook.values(trials))) == pytest.approx([0.0, (1e6 - 0.2) / 0.2, math.inf, 1.0])


def test_differences_far_below_five_percent_are_next_to_none_and_the_way_is_three_decades_at_most(write_config):
    trials = [seen(place=(0.4, 0.5), objective=value) for value in (0.5, 0.5001, 0.5001)]
    close = outlook_of(write_config, "source: eval", trials)
    assert close.regrets(close.values(trials)).max() == pytest.approx(0.0001 / 0.025)
    deep = outlook_of(write_config, "metric: final_loss", [seen(curve=[(39, -18.0)], place=(0.4, 0.5))])
    assert list(deep.regrets(np.array([-18.0, -18.0 + math.log(46.0)]))) == pytest.approx(
        [0.0, math.log(46) / math.log(1e3)]
    )


def test_of_many_trials_the_boundary_sees_a_sample_that_outcomes_had_no_say_in():
    runs = [seen(number=n, spiked=n % 4 == 0, steps=60 if n % 4 == 0 else 500) for n in range(1000)]
    kept = sampled(runs)
    assert len(kept) == 100
    assert sum(run.has_spiked for run in kept) == pytest.approx(25, abs=6)
    assert sum(run.has_spiked for run in remembered(runs)) == pytest.approx(12, abs=2)  # of the newest fifty alone
    assert sampled(runs[:100]) == runs[:100]


def test_a_target_that_is_never_reached_has_a_regret_of_one(write_config):
    outlook = outlook_of(write_config, "metric: steps_to_target, target: 0.5")
    reached, missed = (outlook.value_of(steps, TRIALS[0]) for steps in (30, 2 * 150))
    assert list(outlook.regrets(np.array([reached, missed]))) == pytest.approx([0.0, 1.0])


def test_a_target_missed_by_more_is_worse(write_config):
    trials = [seen(1e-3, (0.3, 0.5), 60, curve=[(39, loss)]) for loss in (-0.1,)]
    values = [
        outlook_of(write_config, f"metric: steps_to_target, target: {target}", trials).values(trials)[0]
        for target in (0.5, 0.1)
    ]
    assert math.log(2 * 150) < values[0] < values[1]
    assert values[1] - values[0] == pytest.approx(math.log(5.0))


def test_without_a_curve_every_value_is_unknown_and_none_is_preferred(write_config):
    outlook = outlook_of(write_config, trials=[seen(place=(0.4, 0.5), steps=5)])
    values = outlook.values(outlook.trials)
    assert list(values) == [math.inf]
    assert list(outlook.regrets(values)) == [0.0]


def test_regrets_do_not_depend_on_the_unit_of_the_loss(write_config):
    def regrets(unit):
        trials = [
            seen(1e-3 * 2**k, (0.2 * k, 0.5), 60, curve=[(39, math.log(unit) - 0.7 * k)], number=k) for k in range(4)
        ]
        trials = [type(run)(**{**run.as_data(), "log_initial": math.log(unit)}) for run in trials]
        outlook = outlook_of(write_config, trials=trials)
        return outlook.regrets(outlook.values(trials))

    np.testing.assert_allclose(regrets(1000.0), regrets(1.0), atol=1e-6)


@pytest.mark.parametrize("n", [101, 149, 150, 300])
def test_a_hundred_trials_are_remembered_once_each_however_many_more_there_are(n):
    kept = remembered([seen(number=k, curve=[(39, float(k))]) for k in range(n)])
    assert len({run.number for run in kept}) == len(kept) == 100
