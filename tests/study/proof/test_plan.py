import dataclasses

import pytest

from stabletune.study.proof.candidates import Candidate
from stabletune.study.proof.plan import QUALIFIERS, ProofRun, plan_proof

SEEDS = 3


def candidate(number, objective=None, risk=0.05):
    return Candidate(
        number=number,
        values={"lr": 1e-3},
        objective=float(number if objective is None else objective),
        risk=risk,
        place=(number / 20.0, 0.5),
    )


def run(number, seed, *, clean=True, objective=1.0, score=0.1):
    return ProofRun(
        candidate=number,
        purpose="confirmation",
        seed=seed,
        is_clean=clean,
        is_spiky=not clean,
        spike_score=score if clean else 3.0,
        objective=objective if clean else None,
        steps=100,
        reason="",
        horizon=100,
    )


def baseline_run(objective=100.0):
    return dataclasses.replace(run(0, 999, objective=objective), purpose="baseline")


def play(candidates, outcome, baseline=100.0):
    """Run a whole proof, one run at a time; ``outcome(number, nth)`` gives each run."""
    sent, runs = [], [baseline_run(baseline)]
    for _ in range(1000):
        plan = plan_proof(candidates, sent, runs, n_seeds=SEEDS)
        if plan.winner or plan.is_exhausted:
            return plan, sent, runs
        for wanted, n_runs in plan.wanted:
            done = runs_of(runs, wanted.number) + (wanted.number == 0)
            if done < n_runs:
                if wanted.number not in sent:
                    sent.append(wanted.number)
                runs.append(outcome(wanted.number, done))
                break
        else:
            pytest.fail("the plan wants nothing and has not ended")
    pytest.fail("the proof does not end")


def runs_of(runs, number):
    return sum(r.candidate == number and r.purpose == "confirmation" for r in runs)


def test_without_candidates_the_proof_is_exhausted_at_once():
    assert plan_proof([], [], [], n_seeds=SEEDS).is_exhausted


def test_a_handful_qualifies_first_once_each_with_the_baseline():
    plan = plan_proof([candidate(n) for n in range(1, 21)], [], [], n_seeds=SEEDS)
    assert [n for _, n in plan.wanted] == [1] * QUALIFIERS
    assert plan.wants_baseline


def test_the_best_loss_at_the_full_horizon_wins_not_the_best_short_trial():
    losses = {1: 5.0, 2: 4.0, 3: 0.5, 4: 3.0}
    plan, _, runs = play([candidate(n) for n in losses], lambda n, i: run(n, 10 * n + i, objective=losses[n]))
    assert plan.winner.candidate.number == 3
    assert runs_of(runs, 3) == SEEDS
    assert len(runs) == 1 + len(losses) + SEEDS - 1


def test_a_finalist_is_dropped_at_its_first_spike_and_the_next_best_takes_its_place():
    losses = {1: 1.0, 2: 2.0, 3: 3.0}
    plan, _, runs = play(
        [candidate(n) for n in losses],
        lambda n, i: run(n, 10 * n + i, clean=not (n == 1 and i == 1), objective=losses[n]),
    )
    assert plan.winner.candidate.number == 2
    assert runs_of(runs, 1) == 2


def test_when_a_handful_is_lost_the_next_is_sent():
    tried = []

    def outcome(number, nth):
        tried.append(number)
        return run(number, len(tried), clean=len(tried) > QUALIFIERS)

    plan, sent, _ = play([candidate(n) for n in range(1, 16)], outcome)
    assert plan.winner.candidate.number in sent[QUALIFIERS:]
    assert len(sent) >= 2 * QUALIFIERS


def test_a_lost_proof_sends_the_next_bold_candidate_far_from_it():
    _, sent, _ = play([candidate(n) for n in range(1, 16)], lambda n, i: run(n, 10 * n + i, clean=n >= 14))
    assert sent[0] == 1
    assert sent[1] >= 5


def test_nothing_wins_when_every_candidate_spikes():
    plan, sent, _ = play([candidate(n) for n in range(1, 10)], lambda n, i: run(n, 10 * n + i, clean=False))
    assert plan.is_exhausted
    assert sorted(sent) == list(range(1, 10))


def test_a_calm_candidate_goes_before_a_faster_one_that_came_near_a_spike():
    scores, losses = {1: 0.9, 2: 0.2}, {1: 1.0, 2: 2.0}
    plan, _, _ = play([candidate(1), candidate(2)], lambda n, i: run(n, n, objective=losses[n], score=scores[n]))
    assert plan.winner.candidate.number == 2


def test_where_none_is_calm_the_best_clean_one_wins_all_the_same():
    plan, _, _ = play([candidate(1), candidate(2)], lambda n, i: run(n, n, objective=3.0 - n, score=0.9))
    assert plan.winner.candidate.number == 2
    assert len(plan.winner.runs) == SEEDS


def test_more_handfuls_are_sent_while_none_beats_the_baseline_but_three_at_most():
    many = [candidate(n) for n in range(1, 41)]
    plan, sent, _ = play(many, lambda n, i: run(n, 10 * n + i, objective=2.0), baseline=1.0)
    assert len(sent) == 3 * QUALIFIERS
    assert plan.winner is not None
    _, sent, _ = play(many, lambda n, i: run(n, 10 * n + i, objective=0.5), baseline=1.0)
    assert len(sent) == QUALIFIERS


def test_a_clean_baseline_that_ends_lowest_is_recommended_itself():
    field = [candidate(n) for n in range(4)]
    plan, _, runs = play(field, lambda n, i: run(n, 10 * n + i, objective=1.0 if n == 0 else 2.0), baseline=1.0)
    assert plan.winner.candidate.number == 0
    assert len(plan.winner.runs) == SEEDS
    assert runs_of(runs, 0) == SEEDS - 1  # its run as the mark to beat is the first of its proof


def test_nothing_is_decided_before_the_baseline_has_run():
    plan = plan_proof([candidate(1)], [1], [run(1, 1)], n_seeds=SEEDS)
    assert plan.wants_baseline
    assert plan.winner is None


def test_a_baseline_that_diverges_is_beaten_by_anything():
    plan, sent, _ = play([candidate(n) for n in range(1, 41)], lambda n, i: run(n, 10 * n + i), baseline=None)
    assert plan.winner is not None
    assert len(sent) == QUALIFIERS


def test_a_candidate_beside_one_that_spiked_gives_way_to_a_slower_one_with_clean_neighbors():
    field = [candidate(n) for n in (1, 2, 10, 11, 18, 19)]
    losses = {1: 0.1, 2: 0.1, 10: 2.0, 11: 2.1, 18: 3.0, 19: 3.1}
    plan, _, _ = play(field, lambda n, i: run(n, 10 * n + i, clean=n != 2, objective=losses[n]))
    assert plan.winner.candidate.number == 10


def test_without_a_secure_one_the_best_clean_one_wins_after_three_handfuls():
    field = [candidate(n, risk=0.9) for n in range(1, 41)]
    plan, sent, _ = play(field, lambda n, i: run(n, 10 * n + i, clean=n % 2 == 0, objective=2.0 + n))
    assert len(sent) == 3 * QUALIFIERS
    assert plan.winner is not None


def test_the_plan_waits_while_a_first_run_is_under_way():
    plan = plan_proof([candidate(1)], [1], [baseline_run()], n_seeds=SEEDS)
    assert (plan.wanted, plan.winner, plan.is_exhausted) == ((), None, False)
