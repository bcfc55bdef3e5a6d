"""An ablation: slow trials run to their end."""

from __future__ import annotations

from benchmarks.search.ablation import replaced
from benchmarks.search.confirmation import Found
from benchmarks.search.methods import stabletune_search
from benchmarks.search.tasks import Task
from stabletune.study.trials import search_phase


def search(task: Task, seed: int) -> Found:
    """Every clean trial takes all its steps."""
    with replaced(search_phase, "pace_limits", lambda config, outlook: ()):
        return stabletune_search.search(task, seed)
