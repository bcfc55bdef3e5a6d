import pytest

from stabletune.study.proof.candidates import Candidate, next_candidates, survival_odds


def candidate(number, objective=1.0, risk=0.2, place=(0.5, 0.5)):
    return Candidate(number=number, values={}, objective=objective, risk=risk, place=place)


def test_odds_without_proofs_are_the_forecast():
    assert survival_odds(candidate(0, risk=0.3), []) == pytest.approx(0.7)


def test_a_proof_at_the_same_place_outweighs_the_forecast():
    lost, won = [(candidate(1), False)], [(candidate(1), True)]
    assert survival_odds(candidate(0, risk=0.2), lost) == pytest.approx(0.5 * 0.8 / 1.5)
    assert survival_odds(candidate(0, risk=0.2), won) == pytest.approx((0.5 * 0.8 + 1.0) / 1.5)


def test_a_proof_far_away_says_nothing():
    far = candidate(1, place=(0.0, 1.0))
    assert survival_odds(candidate(0), [(far, False)]) == pytest.approx(0.8, abs=1e-3)


def test_likely_survivors_go_by_objective_and_before_unlikely_ones():
    safe_slow, safe_fast, risky_fastest = candidate(0, 2.0), candidate(1, 1.0), candidate(2, 0.1, risk=0.9)
    ordered = next_candidates([safe_slow, risky_fastest, safe_fast], [], 3)
    assert [c.number for c in ordered] == [1, 0, 2]


def test_a_candidate_is_sent_once_only():
    assert next_candidates([candidate(0)], [(candidate(0), True)], 3) == []
