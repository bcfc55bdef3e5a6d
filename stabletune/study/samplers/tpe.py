"""Tree-structured Parzen estimator: the default; knows constraints and choices, costs milliseconds."""

from __future__ import annotations

import optuna

KEEPS_STATE = False


def build(seed: int) -> optuna.samplers.BaseSampler:
    """Multivariate TPE."""
    return optuna.samplers.TPESampler(seed=seed, multivariate=True)
