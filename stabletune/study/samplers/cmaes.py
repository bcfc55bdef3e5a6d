"""CMA-ES: many trials of continuous hyperparameters; ignores constraints, which the capped objective stands in for."""

from __future__ import annotations

import warnings

import optuna

READS_JUDGED = False


def build(seed: int) -> optuna.samplers.BaseSampler:
    """CMA-ES; choices are sampled at random."""
    warnings.filterwarnings("ignore", message="Constraints have been set, but CmaEsSampler")
    return optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
