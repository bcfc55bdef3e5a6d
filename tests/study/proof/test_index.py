"""The index against what it stands for: the cheapest way to open boxes, and races that are known beforehand."""

import dataclasses
import itertools
import math

import numpy as np
import pytest

from stabletune.config import load_config
from stabletune.study.prediction.outlook import Outlook
from stabletune.study.proof.plan import plan_proof
from stabletune.study.proof.proof_runs import proof_observations
from stabletune.study.proof.prospects import Candidate, prospects
from tests.study.prediction.seen import seen
from tests.study.proof.test_prospects import SEEDS, prospect, ran


@pytest.fixture
def config(write_config):
    return load_config(write_config(("full_steps: 150", "full_steps: 2500"), ("trial_steps: 60", "trial_steps: 500")))


def loss_after(lr, steps):
    """Log loss above the floor, 4 without training."""
    return 4.0 - 1.5 * math.log(1.0 + 20.0 * lr * steps)


def candidate_at(number, share, beta2=0.5, risk=None):
    lr = 1e-3 * 100.0**share
    curve = [(step, loss_after(lr, step)) for step in (39, 78, 156, 312, 500)]
    observed = seen(lr, (share, beta2), 500, curve=curve, risk=risk, number=number)
    return Candidate(number, {"lr": lr}, dataclasses.replace(observed, log_initial=4.0))


def reached(candidate):
    return math.exp(loss_after(candidate.observation.lr, 2500))


def proof_run(candidate, seed, *, clean=True, objective=None, purpose="confirmation"):
    """A run over the full horizon, or one that spiked half-way."""
    whole = dataclasses.replace(candidate.observation, steps=2500 if clean else 1250, has_spiked=not clean, risk=None)
    value = reached(candidate) if objective is None else objective
    run = ran(candidate.number, seed, clean=clean, objective=value, purpose=purpose)
    return dataclasses.replace(run, observation=whole.as_data())


def clean_runs(candidate, n, objective=None, first_seed=0):
    return [proof_run(candidate, first_seed + k, objective=objective) for k in range(n)]


def found(config, candidates, runs):
    outlook = Outlook(config, [c.observation for c in candidates], proof_observations(runs))
    return {p.candidate.number: p for p in prospects(candidates, runs, outlook, n_seeds=SEEDS)}


def boxes(rng, n):
    """Unproven prospects as boxes: (index, cost, chance that it holds, value if it does), each from its definition."""
    opened = []
    for number in range(n):
        clean = rng.uniform(0.3, 0.99)
        one = prospect(number, regret=rng.uniform(0.0, 0.4), n_clean=clean)
        chances = [(clean + i) / (1.0 + i) for i in range(SEEDS)]
        cost = 0.1 * sum(math.prod(chances[:i]) for i in range(SEEDS)) / SEEDS
        opened.append((one.index, cost, math.prod(chances), one.regret + 5.0 * (1.0 - (clean + SEEDS) / (1.0 + SEEDS))))
    return opened


def cheapest(left, best):
    """The least expected cost and value of all ways to go on, by trying every one; 10 with nothing proven."""
    ways = [best]
    for n, (_, cost, chance, value) in enumerate(left):
        others = left[:n] + left[n + 1 :]
        ways.append(cost + chance * cheapest(others, min(best, value)) + (1.0 - chance) * cheapest(others, best))
    return min(ways)


def by_index(left, best):
    left = sorted(left)
    if not left or best <= left[0][0]:
        return best
    _, cost, chance, value = left[0]
    return cost + chance * by_index(left[1:], min(best, value)) + (1.0 - chance) * by_index(left[1:], best)


@pytest.mark.parametrize("seed", range(5))
def test_no_way_to_open_the_boxes_is_cheaper_than_in_the_order_of_the_index(seed):
    opened = boxes(np.random.default_rng(seed), 5)
    assert by_index(opened, 10.0) == pytest.approx(cheapest(opened, 10.0), abs=1e-12)


def test_a_clean_run_of_its_own_betters_the_index_of_an_unproven_candidate(config):
    one, other = candidate_at(1, 0.3), candidate_at(2, 0.3, beta2=0.9)
    before = found(config, [one, other], [])[1]
    after = found(config, [one, other], clean_runs(one, 1))[1]
    assert (after.n_missing, after.n_seen) == (SEEDS - 1, 2.0)
    assert after.clean_rate > before.clean_rate
    assert after.index < before.index


def test_the_clean_rate_counts_neighbors_by_their_nearness(config):
    one, neighbor = candidate_at(1, 0.3), candidate_at(2, 0.42)
    spike = proof_run(neighbor, 9, clean=False)
    clean, spiked = (found(config, [one, neighbor], [run])[1] for run in (proof_run(neighbor, 9), spike))
    nearness = math.exp(-0.5)  # one reach away
    assert clean.n_seen == spiked.n_seen == pytest.approx(1.0 + nearness)
    outlook = Outlook(config, [one.observation, neighbor.observation], proof_observations([spike]))
    assert spiked.n_clean == pytest.approx(outlook.survival([one.observation])[0])
    assert spiked.clean_rate < clean.clean_rate


def test_a_proof_run_that_failed_loses_its_candidate_and_tells_its_neighbors_nothing(config):
    one, near = candidate_at(1, 0.3), candidate_at(2, 0.32)
    failed = dataclasses.replace(proof_run(one, 5, clean=False), observation=None, is_spiky=False)
    left = found(config, [one, near], [failed])
    assert list(left) == [2]
    assert left[2].n_seen == 1.0


@pytest.mark.parametrize("safe_share", [0.0, 0.05])
def test_a_secure_setting_46_times_slower_does_not_win_over_a_fast_clean_one(config, safe_share):
    slow, fast = candidate_at(1, safe_share, risk=0.001), candidate_at(2, 0.6, risk=0.4)
    slow_is_at = 46.0 * reached(fast)
    runs = clean_runs(slow, SEEDS, objective=slow_is_at) + clean_runs(fast, SEEDS, first_seed=10)
    both = found(config, [slow, fast], runs)
    assert both[1].clean_rate > both[2].clean_rate
    assert both[1].regret > 0.3
    assert plan_proof(list(both.values())).winner == both[2]


def test_before_anything_is_proven_the_fast_one_is_tried_before_the_secure_one(config):
    slow, fast = candidate_at(1, 0.0, risk=0.001), candidate_at(2, 0.6, risk=0.05)
    plan = plan_proof(list(found(config, [slow, fast], []).values()))
    assert plan.wanted.candidate.number == 2


def test_a_near_tie_is_decided_by_the_margin_and_a_clear_lead_is_not(config):
    inside, edge = candidate_at(1, 0.2), candidate_at(2, 0.5, risk=0.6)
    spread = [0.9, 1.0, 1.1]
    for lead, winner in ((1.05, 1), (20.0, 2)):
        objectives = [[0.1 * lead * s for s in spread], [0.1 * s for s in spread]]
        runs = [
            run
            for n, c in enumerate((inside, edge))
            for k, objective in enumerate(objectives[n])
            for run in clean_runs(c, 1, objective, first_seed=10 * n + k)
        ]
        assert plan_proof(list(found(config, [inside, edge], runs).values())).winner.candidate.number == winner


def test_of_equals_the_earlier_trial_is_wanted():
    assert plan_proof([prospect(7), prospect(3), prospect(5)]).wanted.candidate.number == 3


def test_a_candidate_of_unknown_value_comes_last_and_is_still_tried():
    unknown = prospect(1, regret=math.inf)
    assert plan_proof([unknown, prospect(2, regret=3.0, n_clean=0.1)]).wanted.candidate.number == 2
    assert plan_proof([unknown]).wanted == unknown


def test_for_an_eval_value_candidates_are_compared_by_what_their_trials_reached(write_config):
    config = load_config(write_config(("budget:", "objective: {source: eval}\nbudget:")))
    trials = [seen(place=(0.3, 0.5), number=n, objective=value) for n, value in ((1, 0.9), (2, 0.1), (3, 0.5))]
    candidates = [Candidate(run.number, {}, run) for run in trials]
    regrets = {n: p.regret for n, p in found(config, candidates, []).items()}
    assert regrets == pytest.approx({1: 2.0, 2: 0.0, 3: 1.0})


def test_the_baselines_first_run_counts_for_trial_0_and_a_spike_in_it_loses_that_alone(config):
    field = [candidate_at(0, 0.2), candidate_at(1, 0.6)]
    mark = proof_run(field[0], 1, purpose="baseline")
    clean = found(config, field, [mark])
    assert {n: p.n_missing for n, p in clean.items()} == {0: SEEDS - 1, 1: SEEDS}
    spiked = proof_run(field[0], 1, clean=False, purpose="baseline")
    assert list(found(config, field, [spiked])) == [1]


def test_one_seed_is_a_whole_proof_where_no_more_are_asked_for():
    one = dataclasses.replace(prospect(1), n_seeds=1)
    assert plan_proof([one]).n_runs == 1
    assert plan_proof([dataclasses.replace(one, runs=(ran(1, 0),))]).winner is not None


@pytest.mark.parametrize("lost", [*itertools.product((True, False), repeat=3)])
def test_the_race_ends_with_a_clean_candidate_whichever_are_lost(config, lost):
    field = [candidate_at(n, 0.2 + 0.2 * n) for n in (1, 2, 3)]
    runs = []
    for seed in range(3 * SEEDS + 1):
        plan = plan_proof(list(found(config, field, runs).values()))
        if plan.wanted is None:
            break
        chosen = plan.wanted.candidate
        runs.append(proof_run(chosen, seed, clean=not lost[chosen.number - 1]))
    assert plan.is_exhausted == all(lost)
    assert plan.winner is None or (not lost[plan.winner.candidate.number - 1] and len(plan.winner.runs) == SEEDS)
