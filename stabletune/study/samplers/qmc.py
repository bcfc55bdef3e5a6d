"""Quasi-Monte Carlo: an even cover of the space, for maps and comparisons."""

from __future__ import annotations

import optuna

READS_JUDGED = False


def build(seed: int) -> optuna.samplers.BaseSampler:
    """Scrambled Sobol points; choices are sampled at random."""
    return optuna.samplers.QMCSampler(
        seed=seed, scramble=True, warn_asynchronous_seeding=False, warn_independent_sampling=False
    )
