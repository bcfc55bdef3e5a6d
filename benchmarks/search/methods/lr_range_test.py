"""One run with a growing learning rate (Smith, arXiv:1506.01186); a tenth of where the loss was lowest, then halves."""

from __future__ import annotations

import numpy as np

from benchmarks.search.confirmation import Found, confirm
from benchmarks.search.tasks import BASELINE, LR, TRIAL_STEPS, Task
from benchmarks.search.training import Setting, train

SMOOTHING = 20


def search(task: Task, seed: int) -> Found:
    """The rate grows from one end of the range to the other in the steps of one trial."""
    low, high = LR

    def lr_at(step: int) -> float:
        return float(low * (high / low) ** (step / TRIAL_STEPS))

    run = train(task, Setting(low, BASELINE["beta2"]), seed, TRIAL_STEPS, stops_on_spike=False, lr_at=lr_at)
    losses = np.nan_to_num(np.array(run.losses), nan=np.inf)
    smooth = [np.median(losses[max(0, t - SMOOTHING) : t + 1]) for t in range(len(losses))]
    chosen = lr_at(int(np.argmin(smooth))) / 10.0
    return confirm(task, (Setting(chosen / 2**n, BASELINE["beta2"]) for n in range(20)), seed)
