from __future__ import annotations

import pytest
from scipy.stats import beta

from stabletune.results.binomial import spiky_run_rate_upper


def test_zero_of_five_with_two_candidates_gives_the_published_bound() -> None:
    assert spiky_run_rate_upper(0, 5, level=0.05 / 2) == pytest.approx(0.5218, abs=1e-4)


@pytest.mark.parametrize("n_spiky, n_runs", [(0, 1), (1, 5), (3, 7), (4, 5), (2, 2000), (700, 1400)])
@pytest.mark.parametrize("level", [0.05, 0.01])
def test_the_bound_is_the_quantile_of_a_beta_distribution(n_spiky: int, n_runs: int, level: float) -> None:
    expected = beta.ppf(1 - level, n_spiky + 1, n_runs - n_spiky)
    assert spiky_run_rate_upper(n_spiky, n_runs, level=level) == pytest.approx(expected, rel=1e-9)


def test_all_runs_spiky_bounds_nothing() -> None:
    assert spiky_run_rate_upper(5, 5) == 1.0


@pytest.mark.parametrize(
    "n_spiky, n_runs, level", [(0, 0, 0.05), (-1, 5, 0.05), (6, 5, 0.05), (0, 5, 0.0), (0, 5, 1.0)]
)
def test_counts_and_levels_outside_their_range_are_refused(n_spiky: int, n_runs: int, level: float) -> None:
    with pytest.raises(ValueError, match="must hold, but got"):
        spiky_run_rate_upper(n_spiky, n_runs, level=level)
