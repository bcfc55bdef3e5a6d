"""An ablation: no boundary model; a trial's chance to stay clean is its own forecast, one half where it has none."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.search.ablation import replaced
from benchmarks.search.confirmation import Found
from benchmarks.search.methods import stabletune_search
from benchmarks.search.tasks import Task
from stabletune.study.prediction import outlook
from stabletune.study.prediction.boundary import Boundary


def search(task: Task, seed: int) -> Found:
    """The forecast alone; proof runs of neighbors count as ever."""

    def even_odds(_: Boundary, places: Any) -> NDArray[np.float64]:
        return np.full(len(places), 0.5)

    with replaced(Boundary, "survival", even_odds), replaced(outlook, "FORECAST_WEIGHT", 1.0):
        return stabletune_search.search(task, seed)
