"""Optuna's TPE with a constraint read off the loss: a trial that spikes ends there, and is infeasible."""

from __future__ import annotations

import optuna

from benchmarks.search.confirmation import Found, confirm
from benchmarks.search.optuna_trials import optimize, ranked
from benchmarks.search.tasks import Task


def search(task: Task, seed: int) -> Found:
    """Forty trials; the clean ones go to the proof, the best first."""
    sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True)
    study = optuna.create_study(sampler=sampler, pruner=optuna.pruners.NopPruner())
    optimize(task, seed, study, is_constrained=True)
    return confirm(task, ranked(study), seed)
