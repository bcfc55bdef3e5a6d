"""Random search on the final loss of short trials."""

from __future__ import annotations

import optuna

from benchmarks.search.confirmation import Found, confirm
from benchmarks.search.optuna_trials import optimize, ranked
from benchmarks.search.tasks import Task


def search(task: Task, seed: int) -> Found:
    """Forty random settings, the best first to the proof."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed), pruner=optuna.pruners.NopPruner())
    optimize(task, seed, study)
    return confirm(task, ranked(study), seed)
