"""Short trials under an Optuna sampler, as a user would write them: the loss alone decides."""

from __future__ import annotations

import numpy as np
import optuna

from benchmarks.search.tasks import BETA2, LR, TRIAL_STEPS, TRIALS, Task
from benchmarks.search.training import Setting, train

REPORT_EVERY = 20


def ask(trial: optuna.trial.Trial) -> Setting:
    """The next setting."""
    lr = trial.suggest_float("lr", *LR, log=True)
    return Setting(lr, 1.0 - trial.suggest_float("one_minus_beta2", 1.0 - BETA2[1], 1.0 - BETA2[0], log=True))


def setting_of(trial: optuna.trial.FrozenTrial) -> Setting:
    """The setting of a finished trial."""
    return Setting(trial.params["lr"], 1.0 - trial.params["one_minus_beta2"])


def optimize(task: Task, seed: int, study: optuna.Study, *, is_constrained: bool = False) -> None:
    """Run forty short trials for their final loss; the study's pruner sees the loss now and then.

    ``is_constrained``: a trial ends at its first spike, and is then infeasible by its height.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def objective(trial: optuna.trial.Trial) -> float:
        def report(losses: list[float]) -> None:
            if len(losses) % REPORT_EVERY == 0:
                trial.report(float(np.median(losses[-REPORT_EVERY:])), len(losses))
                if trial.should_prune():
                    raise optuna.TrialPruned

        run = train(task, ask(trial), seed, TRIAL_STEPS, stops_on_spike=is_constrained, report=report)
        if is_constrained:
            trial.set_constraint("spike", min(run.worst_score, 1e6) - 1.0 if run.is_spiky else -1.0)
        return min(run.final_loss, 1e12)

    study.optimize(objective, n_trials=TRIALS)


def ranked(study: optuna.Study) -> list[Setting]:
    """Completed trials without a broken constraint, the best value first."""
    complete = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    feasible = [t for t in complete if all(value <= 0.0 for value in t.constraints.values())]
    return [setting_of(t) for t in sorted(feasible, key=lambda t: t.value or 0.0)]
