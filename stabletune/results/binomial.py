"""How weak a clean proof is: the exact upper bound of a rate from few runs."""

from __future__ import annotations

import math


def spiky_run_rate_upper(n_spiky: int, n_runs: int, level: float = 0.05) -> float:
    """The Clopper-Pearson one-sided upper bound of the probability that a run spikes.

    The p that solves P(X <= n_spiky; n_runs, p) = level, found by bisection; 1 - level^(1/n_runs) when no run spiked.
    With k candidates tried, pass ``level=0.05 / k``: the best of k is judged as k looks (Bonferroni).

    Args:
        n_spiky: runs that spiked, 0 <= n_spiky <= n_runs.
        n_runs: independent runs, at least 1.
        level: error level in (0, 1).

    Returns:
        The bound in (0, 1]; 0 of 5 at level 0.05 / 2 gives 0.52.

    Raises:
        ValueError: an argument is outside its range.

    Cost: 60 sums of n_spiky + 1 terms. Source: Clopper and Pearson, Biometrika 26 (1934) 404.
    """
    if n_runs < 1 or not 0 <= n_spiky <= n_runs:
        raise ValueError(
            f"spiky_run_rate_upper: 0 <= n_spiky <= n_runs and n_runs >= 1 must hold, but got {n_spiky} of {n_runs}. "
            "Count the runs again."
        )
    if not 0 < level < 1:
        raise ValueError(f"spiky_run_rate_upper: 0 < level < 1 must hold, but got {level}. The usual level is 0.05.")
    if n_spiky == n_runs:
        return 1.0
    if n_spiky == 0:
        return -math.expm1(math.log(level) / n_runs)
    low, high = n_spiky / n_runs, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _probability_of_at_most(n_spiky, n_runs, middle) > level else (low, middle)
    return (low + high) / 2


def _probability_of_at_most(successes: int, n: int, p: float) -> float:
    """P(X <= successes) for X ~ Binomial(n, p), p > 0; terms by their logarithms, so that large n cannot overflow."""
    if p >= 1.0:
        return 0.0
    log_n = math.lgamma(n + 1)
    return math.fsum(
        math.exp(log_n - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * math.log(p) + (n - k) * math.log1p(-p))
        for k in range(successes + 1)
    )
