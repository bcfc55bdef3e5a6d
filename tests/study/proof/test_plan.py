import dataclasses
import math

import pytest

from stabletune.config import load_config
from stabletune.study.prediction.outlook import Outlook
from stabletune.study.proof.plan import plan_proof
from stabletune.study.proof.prospects import prospects
from tests.study.proof.test_prospects import SEEDS, candidate, prospect, ran


def spread(n, loss=-2.0):
    """Candidates along the learning rate, the fastest where it is highest."""
    return [candidate(k, (k / n, 0.5), loss - 3.0 * k / n) for k in range(1, n + 1)]


def play(config, candidates, outcome):
    """Run a whole proof one run at a time; ``outcome(candidate, nth)`` is (clean, objective)."""
    runs = []
    for seed in range(500):
        outlook = Outlook(config, [c.observation for c in candidates])
        plan = plan_proof(prospects(candidates, runs, outlook, n_seeds=SEEDS))
        if plan.winner or plan.is_exhausted:
            return plan, runs
        chosen = plan.wanted.candidate
        clean, objective = outcome(chosen, len(plan.wanted.runs))
        runs.append(ran(chosen.number, seed, clean=clean, objective=objective, place=chosen.observation.place))
    pytest.fail("the proof does not end")


def test_without_a_prospect_the_proof_is_exhausted():
    assert plan_proof([]).is_exhausted


def test_the_best_index_runs_next_two_seeds_at_first_then_all():
    best, other = prospect(1, regret=0.0), prospect(2, regret=0.5)
    plan = plan_proof([other, best])
    assert (plan.wanted, plan.n_runs) == (best, 2)
    proven_once = dataclasses.replace(prospect(1, n_runs=1), n_clean=1.8, n_seen=2.0)
    assert plan_proof([other, proven_once]).n_runs == SEEDS


def test_a_complete_proof_wins_once_no_other_is_worth_its_steps():
    proven = prospect(1, regret=0.05, n_clean=3.8, n_seen=4.0, n_runs=SEEDS)
    hardly_better, much_better = prospect(2, regret=0.0), prospect(2, regret=-0.8)
    assert plan_proof([proven, hardly_better]).winner == proven
    assert plan_proof([proven, much_better]).wanted == much_better


def test_a_reckless_candidate_is_left_at_its_first_spike_for_one_that_holds(write_config):
    config = load_config(write_config())
    plan, runs = play(config, spread(8), lambda c, nth: (c.number <= 4, 1.0 / c.number))
    assert plan.winner.candidate.number <= 4
    assert len(plan.winner.runs) == SEEDS
    assert sum(not run.is_clean for run in runs) <= 4
    lost = [run.candidate for run in runs if not run.is_clean]
    assert len(set(lost)) == len(lost)


@pytest.mark.parametrize("risk", [0.05, 0.2, 0.4])
def test_a_setting_46_times_slower_does_not_win_for_being_safer(write_config, risk):
    config = load_config(write_config())
    safe = candidate(1, (0.0, 0.5), -12.0 + math.log(46.0), risk=0.001)
    fast = candidate(2, (0.6, 0.5), -12.0, risk=risk)
    plan, _ = play(config, [safe, fast], lambda c, nth: (True, math.exp(c.observation.curve[0][1])))
    assert plan.winner.candidate.number == 2


def test_a_run_that_ends_far_above_its_prediction_makes_way_for_another(write_config):
    config = load_config(write_config())
    candidates = [candidate(1, (0.3, 0.2), -6.0), candidate(2, (0.3, 0.9), -5.5)]
    plan, runs = play(config, candidates, lambda c, nth: (True, 0.9 if c.number == 1 else 0.004))
    assert plan.winner.candidate.number == 2
    assert [run.candidate for run in runs].count(1) < SEEDS


def test_nothing_wins_where_everything_spikes_and_each_was_tried_once(write_config):
    plan, runs = play(load_config(write_config()), spread(6), lambda c, nth: (False, None))
    assert plan.is_exhausted
    assert sorted(run.candidate for run in runs) == [1, 2, 3, 4, 5, 6]
