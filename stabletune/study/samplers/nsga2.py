"""NSGA-II: evolutionary; knows constraints, wants hundreds of trials."""

from __future__ import annotations

import optuna

READS_JUDGED = False


def build(seed: int) -> optuna.samplers.BaseSampler:
    """NSGA-II with a population of 20."""
    return optuna.samplers.NSGAIISampler(seed=seed, population_size=20)
