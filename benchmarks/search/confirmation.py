"""The proof that each method ends in: five fresh seeds over the full horizon, out at the first spike."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from benchmarks.search.tasks import CONFIRM_SEEDS, FULL_STEPS, Task
from benchmarks.search.training import Setting, train

MOST_CANDIDATES = 8


@dataclasses.dataclass(frozen=True)
class Found:
    """What a search came to: its setting, if one survived, how many were proven, and steps in other processes."""

    setting: Setting | None
    n_sent: int
    n_steps_elsewhere: int = 0


def confirm(task: Task, candidates: Iterable[Setting], seed: int) -> Found:
    """The first candidate, in their order, that is clean on five seeds of its own; at most eight are tried."""
    fresh = seed + 1
    n_sent = 0
    for setting in candidates:
        if n_sent == MOST_CANDIDATES:
            break
        n_sent += 1
        n_clean = 0
        while n_clean < CONFIRM_SEEDS:
            run = train(task, setting, fresh, FULL_STEPS, stops_on_spike=True)
            fresh += 1
            if run.is_spiky:
                break
            n_clean += 1
        else:
            return Found(setting, n_sent)
    return Found(None, n_sent)
