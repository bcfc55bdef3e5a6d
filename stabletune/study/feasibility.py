"""How an outcome is told to the sampler: a graded constraint and a finite objective, never a failure.

A diverged or spiked trial told as failed blinds the sampler to it; told as an infeasible one, graded by how bad it was,
it teaches the sampler where the edge is.
"""

from __future__ import annotations

import math

import optuna
from optuna.trial import Trial, TrialState

from stabletune.judgement.objective import objective_of
from stabletune.records import TrialResult

CONSTRAINT = "instability"
LIKELY = 0.5
LARGEST = 1e12
_DIVERGED, _STOPPED = 2.0, 1.0


def constraint_of(survival: float) -> float:
    """Feasible at or below 0: one half less the predicted probability to stay clean over the full horizon."""
    return LIKELY - survival


def instability(result: TrialResult) -> float:
    """Feasible at or below 0: by the forecast of a clean trial; for an unstable one 1 to 4, larger the worse.

    Unstable trials get 1 (stopped) or 2 (diverged), plus the share of the steps that was not reached, plus up to 1 for
    the height of the spike on a log scale.
    """
    if not is_unstable(result):
        return constraint_of(1.0 - result.risk if result.risk is not None else LIKELY)
    grade = _DIVERGED if result.status == "diverged" else _STOPPED
    worst = max((episode.worst_ratio for episode in result.episodes), default=1.0)
    height = min(1.0, math.log10(max(1.0, worst)) / 3.0)
    return grade + (1.0 - result.steps / result.spec.steps) + height


def tell(
    study: optuna.Study,
    trial: Trial,
    result: TrialResult,
    *,
    worst: float | None,
    is_outside: bool,
    has_tradeoff: bool,
) -> None:
    """Tell a study how a trial ended.

    Args:
        study: to be told.
        trial: of the study.
        result: how it ended.
        worst: the largest objective that a finished trial has reached, if any has.
        is_outside: whether its true values lie outside the search space: the sampler must not learn from it.
        has_tradeoff: whether instability is an objective of its own, in place of a constraint.
    """
    if result.status == "failed" or is_outside:
        study.tell(trial.number, state=TrialState.FAIL)
        return
    if not has_tradeoff:
        trial.set_constraint(CONSTRAINT, instability(result))
    if result.status == "pruned":
        if not has_tradeoff:  # Optuna's studies of several objectives keep no intermediate values
            trial.report(float(result.losses[-1]), result.steps)
        study.tell(trial.number, state=TrialState.PRUNED)
        return
    objective = told_objective(result, worst)
    study.tell(trial.number, [objective, instability(result)] if has_tradeoff else objective)


def is_unstable(result: TrialResult) -> bool:
    """Whether the trial spiked, diverged or was stopped because it was about to."""
    return result.is_spiky or result.status == "stopped"


def told_objective(result: TrialResult, worst: float | None = None) -> float:
    """The objective; for a trial without one the larger of ``worst`` and what not having trained would give.

    Args:
        result: the trial.
        worst: the largest objective that a finished trial has reached, if any has.
    """
    if result.objective is not None and math.isfinite(result.objective):
        return min(result.objective, LARGEST)
    finite = result.losses[:10][[math.isfinite(loss) for loss in result.losses[:10]]]
    if result.spec.source == "eval" and worst is not None:
        return worst
    if result.spec.metric == "steps_to_target":
        return 2.0 * result.spec.steps
    if finite.size == 0 or (result.spec.metric == "loss_auc" and finite.min() <= 0.0):
        return LARGEST
    untrained = objective_of(result.spec.metric, finite)
    return min(LARGEST, untrained if worst is None else max(worst, untrained))
