"""An ablation: trials are not stopped before their spike, on the signals' word."""

from __future__ import annotations

from benchmarks.search.ablation import replaced
from benchmarks.search.confirmation import Found
from benchmarks.search.methods import stabletune_search
from benchmarks.search.tasks import Task
from stabletune.trial.stoppers import imminent_spike


def search(task: Task, seed: int) -> Found:
    """Trials end at their first spike all the same."""
    with replaced(imminent_spike, "imminent_spike", lambda history: None):
        return stabletune_search.search(task, seed)
