"""Short trials under an Optuna sampler, as a user would write them: the loss alone decides."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import optuna

from benchmarks.search.tasks import BETA2, LR, TRIAL_STEPS, TRIALS, Task
from benchmarks.search.training import Run, Setting, train

REPORT_EVERY = 20


def ask(trial: optuna.trial.Trial) -> Setting:
    """The next setting."""
    lr = trial.suggest_float("lr", *LR, log=True)
    return Setting(lr, 1.0 - trial.suggest_float("one_minus_beta2", 1.0 - BETA2[1], 1.0 - BETA2[0], log=True))


def setting_of(trial: optuna.trial.FrozenTrial) -> Setting:
    """The setting of a finished trial."""
    return Setting(trial.params["lr"], 1.0 - trial.params["one_minus_beta2"])


def optimize(task: Task, seed: int, study: optuna.Study, judge: Callable[[optuna.trial.Trial, Run], float]) -> None:
    """Run forty short trials, whose value ``judge`` gives; the study's pruner sees the loss now and then."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def objective(trial: optuna.trial.Trial) -> float:
        def is_pruned(losses: list[float]) -> bool:
            if len(losses) % REPORT_EVERY:
                return False
            trial.report(float(np.median(losses[-REPORT_EVERY:])), len(losses))
            return trial.should_prune()

        setting = ask(trial)
        stops = bool(study.user_attrs.get("stops_on_spike"))
        run = train(task, setting, seed, TRIAL_STEPS, stops_on_spike=stops, is_enough=is_pruned)
        if len(run.losses) < TRIAL_STEPS and not run.is_spiky:
            raise optuna.TrialPruned
        return judge(trial, run)

    study.optimize(objective, n_trials=TRIALS)


def ranked(study: optuna.Study) -> list[Setting]:
    """Completed trials without a broken constraint, the best value first."""
    complete = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    feasible = [t for t in complete if all(value <= 0.0 for value in t.constraints.values())]
    return [setting_of(t) for t in sorted(feasible, key=lambda t: t.value or 0.0)]
