"""CMA-ES: many trials of continuous hyperparameters; ignores constraints, which the capped objective stands in for."""

from __future__ import annotations

import optuna


def build(seed: int) -> optuna.samplers.BaseSampler:
    """CMA-ES; choices are sampled at random."""
    return optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
