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


def test_bold_and_safe_candidates_take_turns():
    field = [candidate(n, objective=float(n), risk=0.45 - 0.04 * n) for n in range(10)]
    assert [c.number for c in next_candidates(field, [], 4)] == [0, 4, 1, 3]


def test_settings_forecast_to_spike_wait_however_fast():
    field = [candidate(0, 0.1, risk=0.9), *(candidate(n, float(n)) for n in range(1, 6))]
    assert [c.number for c in next_candidates(field, [], 3)] == [1, 2, 3]
