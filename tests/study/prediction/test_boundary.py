import math

import numpy as np
import pytest
from scipy.optimize import minimize

from stabletune.study.prediction.boundary import Boundary
from tests.study.prediction.seen import rate_at, seen

HORIZON = 2500


def fitted(runs, n=1, lr_coordinate=0):
    return Boundary(runs, n_coordinates=n, horizon=HORIZON, lr_coordinate=lr_coordinate)


def onset(share, rng):
    """Log onset falls by .8 for each e-fold of the learning rate: 2500 steps at 1.8e-3, with noise."""
    return math.exp(math.log(HORIZON) - 0.8 * math.log(rate_at(share) / 1.8e-3) + 0.3 * rng.standard_normal())


def drawn(n, length, rng):
    runs = []
    for share in rng.uniform(0.0, 1.0, n):
        at = onset(share, rng)
        runs.append(seen(place=(share,), steps=round(min(at, length)), spiked=at <= length))
    return runs


def test_without_a_run_the_highest_rate_is_the_least_likely_to_stay_clean():
    low, middle, high = fitted([]).survival([[0.0], [0.5], [1.0]])
    assert low > middle > high
    assert low > 0.5


def test_short_trials_tell_where_the_full_horizon_is_clean():
    rng = np.random.default_rng(0)
    boundary = fitted(drawn(40, 500, rng))
    survival = boundary.survival(np.linspace(0.0, 1.0, 11)[:, None])
    assert np.all(np.diff(survival) < 0.0)
    edge = np.interp(0.5, survival[::-1], np.linspace(0.0, 1.0, 11)[::-1])
    true_edge = math.log(1.8e-3 / 1e-4) / math.log(1e3)  # seen by no run: the trials end at a fifth of the horizon
    assert edge == pytest.approx(true_edge, abs=0.15)


def test_predicted_survival_is_the_share_of_fresh_runs_that_stay_clean():
    rng = np.random.default_rng(1)
    predicted, clean = [], []
    for _ in range(10):
        boundary = fitted([*drawn(35, 500, rng), *drawn(5, HORIZON, rng)])
        shares = rng.uniform(0.0, 1.0, 60)
        predicted.append(boundary.survival(shares[:, None]))
        clean.append([onset(share, rng) > HORIZON for share in shares])
    predicted, clean = np.concatenate(predicted), np.concatenate(clean)
    assert predicted.mean() == pytest.approx(clean.mean(), abs=0.1)
    sure, doubtful = predicted > 0.8, predicted < 0.2
    assert clean[sure].mean() > 0.85
    assert clean[doubtful].mean() < 0.15


def test_a_clean_full_run_raises_survival_near_it_and_a_late_spike_lowers_it():
    trials = drawn(20, 500, np.random.default_rng(2))
    before = fitted(trials).survival([[0.5]])[0]
    clean = fitted([*trials, seen(place=(0.5,), steps=HORIZON)]).survival([[0.5]])[0]
    spiked = fitted([*trials, seen(place=(0.5,), steps=1500, spiked=True)]).survival([[0.5]])[0]
    assert spiked < before < clean


def test_a_trial_that_ended_clean_is_censored_there_not_taken_for_clean_to_the_end():
    short = [seen(place=(0.9,), steps=100) for _ in range(10)]
    whole = [seen(place=(0.9,), steps=HORIZON) for _ in range(10)]
    assert fitted(short).survival([[0.9]])[0] < fitted(whole).survival([[0.9]])[0] - 0.1


def test_the_fit_minimizes_the_penalized_likelihood_written_out_run_by_run():
    runs = [
        seen(place=(0.9, 0.2), steps=120, spiked=True),
        seen(place=(0.7, 0.9), steps=500),
        seen(place=(0.2, 0.4), steps=2500),
        seen(place=(0.5, 0.5), steps=900, spiked=True),
    ]
    ends = [HORIZON * 2.0 ** (-k / 1.5) for k in range(11, -1, -1)]
    starts = [1.0, *ends[:-1]]
    rows = []  # features, spiked, weight

    def add(place, steps, spiked, weight):
        a, b = 3.0 * (place[0] - 0.5), 3.0 * (place[1] - 0.5)
        for start, end in zip(starts, ends, strict=True):
            time = 2.0 * math.log10(math.sqrt(start * end) / HORIZON)
            features = [a, b, 0.4 * a * a, 0.4 * a * b, 0.4 * b * b, time]
            if steps <= end:
                share = 1.0 if spiked else math.log(steps / start) / math.log(end / start)
                rows.append((features, spiked, weight * share))
                return
            rows.append((features, False, weight))

    for run in runs:
        add(run.place, run.steps, run.has_spiked, 1.0)
    add((1.0, 0.5), HORIZON / 4, True, 0.5)
    add((0.0, 0.5), HORIZON, False, 0.5)
    x, y, w = (np.array(column, dtype=float) for column in zip(*rows, strict=True))

    def loss(theta):
        z = x @ theta[:-1] + theta[-1]
        return np.sum(w * (np.logaddexp(0.0, z) - y * z)) + 0.5 * np.sum(theta[:-1] ** 2)

    theta = minimize(loss, np.zeros(7), method="BFGS", options={"gtol": 1e-8}).x
    place = (0.6, 0.3)
    a, b = 3.0 * (place[0] - 0.5), 3.0 * (place[1] - 0.5)
    expected = 1.0
    for start, end in zip(starts, ends, strict=True):
        features = [a, b, 0.4 * a * a, 0.4 * a * b, 0.4 * b * b, 2.0 * math.log10(math.sqrt(start * end) / HORIZON)]
        expected *= 1.0 - 1.0 / (1.0 + math.exp(-(np.dot(features, theta[:-1]) + theta[-1])))
    assert fitted(runs, n=2).survival([place])[0] == pytest.approx(expected, abs=2e-3)
