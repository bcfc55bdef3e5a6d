from __future__ import annotations

import numpy as np
import pytest

from stabletune.results.report.downsampling import downsample


def test_a_short_series_stays_as_it_is() -> None:
    steps = np.arange(1000.0)
    assert downsample(steps, steps)[0] is steps


@pytest.mark.parametrize("size", [1001, 2500, 100_003])
def test_a_long_series_keeps_its_ends_its_order_and_at_most_the_points_asked_for(size: int) -> None:
    steps = np.arange(float(size))
    kept, values = downsample(steps, np.random.default_rng(0).normal(size=size))
    assert kept.size == values.size <= 1000
    assert kept[0] == 0 and kept[-1] == size - 1 and bool(np.all(np.diff(kept) > 0))


def test_a_one_step_spike_survives() -> None:
    values = np.ones(50_000)
    values[31_415] = 99.0
    kept, shown = downsample(np.arange(50_000.0), values)
    assert shown.max() == 99.0 and kept[shown.argmax()] == 31_415


def test_a_divergence_survives() -> None:
    values = np.ones(5_000)
    values[4_321] = np.nan
    kept, shown = downsample(np.arange(5_000.0), values)
    assert np.isnan(shown[kept == 4_321]).all() and (kept == 4_321).any()
