"""Tree-structured Parzen estimator: the default; knows constraints and choices, costs milliseconds."""

from __future__ import annotations

import optuna

READS_JUDGED = True


def build(seed: int) -> optuna.samplers.BaseSampler:
    """Multivariate TPE."""
    return optuna.samplers.TPESampler(seed=seed, multivariate=True)
