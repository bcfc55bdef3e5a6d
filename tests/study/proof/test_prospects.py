import dataclasses
import itertools
import math

import numpy as np
import pytest

from stabletune.config import load_config
from stabletune.study.prediction.outlook import Outlook
from stabletune.study.proof.front import front, point_of
from stabletune.study.proof.proof_runs import ProofRun
from stabletune.study.proof.prospects import Candidate, Prospect, prospects, seed_noise
from tests.study.prediction.seen import seen

SEEDS = 3


def candidate(number, place=(0.5, 0.5), loss=-2.0, risk=None):
    return Candidate(number, {"lr": 1e-3 * number}, seen(place=place, curve=[(39, loss)], number=number, risk=risk))


def ran(number, seed, *, clean=True, objective=0.1, place=(0.5, 0.5), purpose="confirmation"):
    observation = seen(place=place, steps=150 if clean else 90, spiked=not clean, number=number)
    return ProofRun(
        candidate=number,
        purpose=purpose,
        seed=seed,
        is_clean=clean,
        objective=objective if clean else None,
        steps=observation.steps,
        reason="",
        horizon=150,
        observation=observation.as_data(),
    )


def prospect(number=1, regret=0.0, n_clean=0.8, n_seen=1.0, n_runs=0, objective=1.0):
    runs = tuple(ran(number, seed) for seed in range(n_runs))
    return Prospect(candidate(number), runs, objective, regret, n_clean, n_seen, SEEDS)


@pytest.fixture
def outlook(write_config):
    return Outlook(load_config(write_config()), [candidate(n).observation for n in range(3)])


@pytest.mark.parametrize("n_runs", [0, 1, 2])
def test_the_index_is_regret_and_spikes_to_come_and_the_expected_cost_of_each_success(n_runs):
    found = prospect(regret=0.2, n_clean=0.7 + n_runs, n_seen=1.0 + n_runs, n_runs=n_runs)
    missing = SEEDS - n_runs
    expected_runs = success = 0.0
    for outcome in itertools.product((True, False), repeat=missing):
        probability, n_made, a, w = 1.0, 0, found.n_clean, found.n_seen
        for is_clean in outcome:
            chance = a / w
            probability *= chance if is_clean else 1.0 - chance
            if n_made == 0 or all(outcome[:n_made]):
                n_made += 1
            a, w = a + is_clean, w + 1.0
        expected_runs += probability * n_made
        success += probability * all(outcome)
    rate = (found.n_clean + missing) / (found.n_seen + missing)
    expected = 0.2 + 5.0 * (1.0 - rate) + 0.1 * expected_runs / SEEDS / success
    assert found.index == pytest.approx(expected)


def test_a_candidate_with_a_run_that_was_not_clean_is_no_prospect(outlook):
    runs = [ran(1, 10), ran(1, 11, clean=False), ran(2, 12)]
    assert [p.candidate.number for p in prospects([candidate(1), candidate(2)], runs, outlook, n_seeds=SEEDS)] == [2]
    assert prospects([candidate(1)], runs, outlook, n_seeds=SEEDS) == []


def test_a_spike_nearby_lowers_the_chance_and_one_far_away_does_not(outlook):
    def chance(place):
        runs = [ran(2, 10, clean=False, place=place)]
        return prospects([candidate(1)], runs, outlook, n_seeds=SEEDS)[0].chance

    alone = prospects([candidate(1)], [], outlook, n_seeds=SEEDS)[0].chance
    assert chance((0.5, 0.55)) < 0.6 * alone
    assert chance((1.0, 0.0)) == pytest.approx(alone, rel=1e-3)


def test_what_was_reached_replaces_what_was_predicted(outlook):
    runs = [ran(1, seed, objective=objective) for seed, objective in enumerate((0.1, 0.3, 0.2))]
    found = prospects([candidate(1), candidate(2)], runs, outlook, n_seeds=SEEDS)
    assert found[0].objective == pytest.approx(0.2)
    assert found[1].objective == pytest.approx(math.exp(outlook.values([candidate(2).observation])[0]))


def test_the_baselines_first_run_counts_for_trial_0(outlook):
    runs = [ran(0, 1, purpose="baseline")]
    assert len(prospects([candidate(0)], runs, outlook, n_seeds=SEEDS)[0].runs) == 1


def test_the_noise_between_seeds_is_the_pooled_standard_deviation():
    groups = [[1.0, 2.0, 3.0], [5.0], [0.0, 4.0], []]
    residuals = np.array([-1.0, 0.0, 1.0, -2.0, 2.0])
    assert seed_noise(groups) == pytest.approx(math.sqrt(np.sum(residuals**2) / 3))
    assert seed_noise([[1.0], []]) == 0.0


def test_of_near_ties_the_one_with_the_larger_margin_has_the_better_index(outlook):
    near, far = (0.9, 0.5), (0.2, 0.5)
    runs = [ran(1, s, objective=o, place=near) for s, o in enumerate((0.10, 0.16, 0.13))]
    runs += [ran(2, 10 + s, objective=o, place=far) for s, o in enumerate((0.12, 0.18, 0.15))]
    runs += [ran(3, 20, clean=False, place=(0.95, 0.5))]
    edge, inside = prospects([candidate(1, near), candidate(2, far)], runs, outlook, n_seeds=SEEDS)
    assert edge.objective < inside.objective
    assert inside.regret == 0.0
    assert inside.index < edge.index


def test_the_front_holds_what_nothing_beats_in_both_and_the_recommended_one():
    points = [(1, 1.0, 0.6), (2, 2.0, 0.9), (3, 3.0, 0.8), (4, 4.0, 0.95), (5, 4.0, 0.95)]
    found = [prospect(n, n_clean=chance, objective=objective) for n, objective, chance in points]
    drawn = front(found, found[2])
    assert [point["trial"] for point in drawn] == [1, 2, 3, 4]
    assert point_of(drawn) == {"point": 3, "of": 4}
    assert [point["trial"] for point in front(found, None)] == [1, 2, 4]
    assert point_of(front(found, None)) is None


def test_a_candidate_of_unknown_value_is_no_point_of_the_front():
    assert front([dataclasses.replace(prospect(), objective=math.inf)], None) == []
