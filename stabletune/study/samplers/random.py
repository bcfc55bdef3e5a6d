"""Random search: the reference to beat."""

from __future__ import annotations

import optuna

READS_JUDGED = False


def build(seed: int) -> optuna.samplers.BaseSampler:
    """Independent draws."""
    return optuna.samplers.RandomSampler(seed=seed)
