import pytest

from stabletune.study.proof.candidates import Candidate
from stabletune.study.proof.plan import QUALIFIERS, ProofRun, plan_proof

SEEDS = 3


def candidate(number, objective=None, risk=0.2):
    return Candidate(
        number=number,
        values={"lr": 1e-3},
        objective=float(number if objective is None else objective),
        risk=risk,
        place=(number / 100.0, 0.5),
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
    )


def play(candidates, outcome):
    """Run a whole proof, one run at a time; ``outcome(number, nth)`` gives each run."""
    sent, runs = [], []
    for _ in range(1000):
        plan = plan_proof(candidates, sent, runs, SEEDS)
        if plan.winner or plan.is_exhausted:
            return plan, sent, runs
        for wanted, n_runs in plan.wanted:
            done = sum(r.candidate == wanted.number for r in runs)
            if done < n_runs:
                if wanted.number not in sent:
                    sent.append(wanted.number)
                runs.append(outcome(wanted.number, done))
                break
        else:
            pytest.fail("the plan wants nothing and has not ended")
    pytest.fail("the proof does not end")


def test_without_candidates_the_proof_is_exhausted_at_once():
    assert plan_proof([], [], [], SEEDS).is_exhausted


def test_a_handful_of_the_best_objectives_qualifies_first_once_each():
    plan = plan_proof([candidate(n) for n in range(20)], [], [], SEEDS)
    assert [(c.number, n) for c, n in plan.wanted] == [(n, 1) for n in range(QUALIFIERS)]


def test_the_best_loss_at_the_full_horizon_wins_not_the_best_short_trial():
    losses = {0: 5.0, 1: 4.0, 2: 0.5, 3: 3.0}
    plan, _, runs = play([candidate(n) for n in losses], lambda n, i: run(n, 10 * n + i, objective=losses[n]))
    assert plan.winner.candidate.number == 2
    assert sum(r.candidate == 2 for r in runs) == SEEDS
    assert len(runs) == len(losses) + SEEDS - 1


def test_a_finalist_is_dropped_at_its_first_spike_and_the_next_best_takes_its_place():
    losses = {0: 1.0, 1: 2.0, 2: 3.0}
    plan, _, runs = play(
        [candidate(n) for n in losses],
        lambda n, i: run(n, 10 * n + i, clean=not (n == 0 and i == 1), objective=losses[n]),
    )
    assert plan.winner.candidate.number == 1
    assert sum(r.candidate == 0 for r in runs) == 2


def test_when_a_handful_is_lost_the_next_is_sent():
    tried = []

    def outcome(number, nth):
        tried.append(number)
        return run(number, len(tried), clean=len(tried) > QUALIFIERS)

    plan, sent, _ = play([candidate(n) for n in range(15)], outcome)
    assert plan.winner.candidate.number in sent[QUALIFIERS:]
    assert len(sent) == 2 * QUALIFIERS


def test_a_lost_proof_sends_the_rest_of_the_handful_far_from_it():
    _, sent, _ = play([candidate(n) for n in range(15)], lambda n, i: run(n, 10 * n + i, clean=n >= 13))
    assert sent[0] == 0
    assert sent[1] > 10


def test_nothing_wins_when_every_candidate_spikes():
    plan, sent, _ = play([candidate(n) for n in range(9)], lambda n, i: run(n, 10 * n + i, clean=False))
    assert plan.is_exhausted
    assert sorted(sent) == list(range(9))


def test_a_calm_candidate_goes_before_a_faster_one_that_came_near_a_spike():
    scores, losses = {0: 0.9, 1: 0.2}, {0: 1.0, 1: 2.0}
    plan, _, _ = play([candidate(0), candidate(1)], lambda n, i: run(n, n, objective=losses[n], score=scores[n]))
    assert plan.winner.candidate.number == 1


def test_where_none_is_calm_the_best_clean_one_wins_all_the_same():
    plan, _, _ = play([candidate(0), candidate(1)], lambda n, i: run(n, n, objective=2.0 - n, score=0.9))
    assert plan.winner.candidate.number == 1
    assert len(plan.winner.runs) == SEEDS


def test_the_plan_waits_while_a_first_run_is_under_way():
    plan = plan_proof([candidate(0)], [0], [], SEEDS)
    assert (plan.wanted, plan.winner, plan.is_exhausted) == ((), None, False)
