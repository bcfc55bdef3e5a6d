"""An ablation: the forecast from a trial's own signals has no say in its chance to stay clean."""

from __future__ import annotations

from benchmarks.search.ablation import replaced
from benchmarks.search.confirmation import Found
from benchmarks.search.methods import stabletune_search
from benchmarks.search.tasks import Task
from stabletune.study.prediction import outlook


def search(task: Task, seed: int) -> Found:
    """The boundary model alone."""
    with replaced(outlook, "FORECAST_WEIGHT", 0.0):
        return stabletune_search.search(task, seed)
