"""Results of trials that nobody trained, and a sampler that keeps what it was shown."""

import numpy as np
import optuna
from optuna.trial import TrialState

from stabletune.records import TrialResult
from stabletune.study.feasibility import CONSTRAINT


def made_up(spec):
    """A curve that falls with the learning rate; the highest rates are stopped."""
    lr = spec.params["lr"]
    is_stopped = lr > 3e-2
    steps = np.arange(1, (40 if is_stopped else spec.steps) + 1)
    losses = np.exp(-3.0 * np.log1p(lr * steps))
    status, objective = ("stopped", None) if is_stopped else ("completed", float(losses[-3:].mean()))
    return TrialResult(spec=spec, status=status, reason="made up", losses=losses, objective=objective, risk=0.2)


class Reader(optuna.samplers.RandomSampler):
    """Draws at random, and keeps what it could read when it was asked."""

    def sample_relative(self, study, trial, search_space):
        others = [other for other in study.get_trials() if other.number != trial.number]
        self.finished = [
            (t.params["lr"], t.value, t.constraints[CONSTRAINT]) for t in others if t.state == TrialState.COMPLETE
        ]
        self.running = [t.params["lr"] for t in others if t.state == TrialState.RUNNING]
        return super().sample_relative(study, trial, search_space)
