"""An ablation: the value of a trial is the loss that it ended with, as in any tuner of short trials."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.search.ablation import replaced
from benchmarks.search.confirmation import Found
from benchmarks.search.methods import stabletune_search
from benchmarks.search.tasks import Task
from stabletune.study.prediction.observation import Observation
from stabletune.study.prediction.outlook import Outlook


def search(task: Task, seed: int) -> Found:
    """No path length, no curves."""

    def last_losses(_: Outlook, runs: Sequence[Observation]) -> NDArray[np.float64]:
        return np.array([run.curve[-1][1] if run.curve else math.inf for run in runs])

    with replaced(Outlook, "_predicted", last_losses):
        return stabletune_search.search(task, seed)
