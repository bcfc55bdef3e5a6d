"""Optuna's TPE with its MedianPruner on the loss."""

from __future__ import annotations

import optuna

from benchmarks.search.confirmation import Found, confirm
from benchmarks.search.optuna_trials import optimize, ranked
from benchmarks.search.tasks import Task


def search(task: Task, seed: int) -> Found:
    """Forty trials; those slower than the median of the others end early."""
    pruner = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=100)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed, multivariate=True), pruner=pruner)
    optimize(task, seed, study)
    return confirm(task, ranked(study), seed)
