"""A series in bounded memory keeps its ends and its peaks, whatever its length."""

import math

import numpy as np
import pytest

from stabletune.dashboard.thinned_series import ThinnedSeries


def thinned(values, points=60):
    series = ThinnedSeries(points)
    for step, value in enumerate(values):
        series.append(step, value)
    return series.columns()


def test_nothing_is_nothing():
    assert ThinnedSeries(10).columns() == [[], []]


@pytest.mark.parametrize("size", [1, 2, 3, 28, 29])
def test_a_short_series_is_kept_whole(size):
    values = np.random.default_rng(size).normal(size=size).tolist()
    assert thinned(values) == [list(range(size)), values]


@pytest.mark.parametrize("points", [4, 5, 7, 60, 61])
@pytest.mark.parametrize("size", [30, 57, 58, 59, 60, 116, 117, 1000, 4097])
def test_a_long_one_is_bounded_and_keeps_its_ends_and_extremes(size, points):
    values = np.random.default_rng(size).normal(size=size).tolist()
    steps, kept = thinned(values, points)
    assert len(steps) <= points
    assert steps == sorted(set(steps))
    assert (steps[0], steps[-1]) == (0, size - 1)
    assert {min(values), max(values)} <= set(kept)
    assert [values[int(step)] for step in steps] == kept


def test_old_and_new_are_thinned_alike():
    steps, _ = thinned(np.random.default_rng(0).normal(size=20_000).tolist(), points=600)
    counts, _ = np.histogram(steps, bins=10, range=(0, 20_000))
    assert counts.max() <= 2 * counts.min()


def test_every_peak_of_one_step_stays_while_there_is_room_for_each():
    peaks = [17, 1234, 2345, 5001, 9998]
    values = np.zeros(10_000)
    values[peaks] = 1.0
    steps, kept = thinned(values.tolist())
    assert [step for step, value in zip(steps, kept, strict=True) if value == 1.0] == peaks


def test_a_value_that_is_not_finite_counts_as_the_largest():
    values = [1.0] * 5000
    values[3333] = math.nan
    steps, kept = thinned(values)
    assert math.isnan(kept[steps.index(3333)])
