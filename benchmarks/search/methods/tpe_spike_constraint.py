"""Optuna's TPE with a constraint read off the loss: a trial that spikes ends there, and is infeasible."""

from __future__ import annotations

import optuna

from benchmarks.search.confirmation import Found, confirm
from benchmarks.search.optuna_trials import optimize, ranked
from benchmarks.search.tasks import Task
from benchmarks.search.training import Run


def search(task: Task, seed: int) -> Found:
    """Forty trials; the clean ones go to the proof, the best first."""
    sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True)
    study = optuna.create_study(sampler=sampler, pruner=optuna.pruners.NopPruner())
    study.set_user_attr("stops_on_spike", True)

    def judge(trial: optuna.trial.Trial, run: Run) -> float:
        trial.set_constraint("spike", min(run.worst_score, 1e6) - 1.0 if run.is_spiky else -1.0)
        return min(run.final_loss, 1e12)

    optimize(task, seed, study, judge)
    return confirm(task, ranked(study), seed)
