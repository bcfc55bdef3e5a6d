"""The boundary over many drawn searches: its chances are shares, whatever the power that the onset falls with."""

import math

import numpy as np
import pytest

from stabletune.study.prediction.boundary import Boundary
from tests.study.prediction.seen import rate_at, seen

HORIZON = 2500


def fitted(runs, n=2, lr_coordinate=0):
    return Boundary(runs, n_coordinates=n, horizon=HORIZON, lr_coordinate=lr_coordinate)


def onset(place, power, rng):
    """Falls as a power of the rate, is later where the second coordinate is low."""
    edge = math.log(rate_at(0.45)) + 1.5 * (0.5 - place[1])
    return HORIZON * math.exp(power * (edge - math.log(rate_at(place[0]))) + 0.4 * rng.standard_normal())


def drawn(n, length, power, rng):
    runs = []
    for _ in range(n):
        place = tuple(rng.uniform(0.0, 1.0, 2))
        at = max(1.0, onset(place, power, rng))
        runs.append(seen(place=place, steps=math.ceil(min(at, length)), spiked=at <= length))
    return runs


@pytest.mark.parametrize("power", [0.6, 1.0, 1.5])
def test_chances_are_the_shares_of_fresh_runs_whatever_the_power(power):
    rng = np.random.default_rng(int(10 * power))
    predicted, clean = [], []
    for _ in range(12):
        boundary = fitted([*drawn(40, 500, power, rng), *drawn(4, HORIZON, power, rng)])
        places = rng.uniform(0.0, 1.0, (60, 2))
        predicted.append(boundary.survival(places))
        clean.append([onset(place, power, rng) > HORIZON for place in places])
    predicted, clean = np.concatenate(predicted), np.concatenate(clean)
    assert predicted.mean() == pytest.approx(clean.mean(), abs=0.1)
    for low, high in ((0.0, 0.25), (0.25, 0.75), (0.75, 1.01)):
        within = (predicted >= low) & (predicted < high)
        assert predicted[within].mean() == pytest.approx(clean[within].mean(), abs=0.15)
    brier, known_share = np.mean((predicted - clean) ** 2), clean.mean()
    assert brier < 0.6 * known_share * (1.0 - known_share)


def test_what_the_boundary_learns_of_a_second_hyperparameter_moves_the_edge():
    boundary = fitted(drawn(80, 500, 1.0, np.random.default_rng(3)))
    low, high = boundary.survival([(0.45, 0.1), (0.45, 0.9)])
    assert low > high + 0.2


def test_the_order_of_the_runs_does_not_matter():
    runs = drawn(30, 500, 1.0, np.random.default_rng(4))
    places = np.random.default_rng(5).uniform(0.0, 1.0, (20, 2))
    np.testing.assert_allclose(fitted(runs).survival(places), fitted(runs[::-1]).survival(places), atol=1e-3)


def test_a_trial_ended_at_its_first_step_tells_next_to_nothing():
    runs = drawn(20, 500, 1.0, np.random.default_rng(6))
    ended = [*runs, seen(place=(0.4, 0.5), steps=1)]
    before, after = (fitted(seen_so_far).survival([(0.4, 0.5)])[0] for seen_so_far in (runs, ended))
    assert after == pytest.approx(before, abs=1e-3)


def test_the_longer_a_trial_stayed_clean_the_more_likely_its_settings_are():
    runs = drawn(20, 500, 1.0, np.random.default_rng(7))
    lengths = (30, 100, 300, 1000, HORIZON)
    chances = [fitted([*runs, seen(place=(0.5, 0.5), steps=n)]).survival([(0.5, 0.5)])[0] for n in lengths]
    assert chances == sorted(chances)


def test_where_the_rate_is_not_searched_the_rest_is_learned_all_the_same():
    rng = np.random.default_rng(8)
    fixed_rate = [(share, onset((0.45, share), 1.0, rng)) for share in rng.uniform(0.0, 1.0, 60)]
    runs = [seen(place=(share,), steps=math.ceil(min(at, 1500)), spiked=at <= 1500) for share, at in fixed_rate]
    low, high = fitted(runs, n=1, lr_coordinate=None).survival([[0.05], [0.95]])
    assert low > high + 0.3
    assert 0.0 < fitted([], n=1, lr_coordinate=None).survival([[0.5]])[0] < 1.0


@pytest.mark.parametrize("horizon", [20, 100, 161, 162, 100_000])
def test_any_horizon_gives_probabilities_that_fall_with_the_rate(horizon):
    runs = [
        seen(place=(0.9,), steps=max(1, horizon // 10), spiked=True),
        seen(place=(0.3,), steps=horizon),
        seen(steps=1),
    ]
    boundary = Boundary(runs, n_coordinates=1, horizon=horizon, lr_coordinate=0)
    survival = boundary.survival(np.linspace(0.0, 1.0, 5)[:, None])
    assert np.all((survival > 0.0) & (survival < 1.0))
    assert np.all(np.diff(survival) < 0.0)
