"""What to prove next, as a pure function of what has been proven: no executor, no clock, no files.

The baseline runs once over the full horizon, whatever it does, for what that teaches. Then candidates are raced one at
a time: the one with the best index gets its next seeds, what each run showed changes every index, and at its first
spike a candidate is out. The race ends when a candidate with all its seeds has the best index: no other is
worth its steps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from stabletune.study.proof.prospects import Prospect

BASELINE = 0


@dataclasses.dataclass(frozen=True)
class Plan:
    """What the proof needs: ``wanted`` should have ``n_runs`` runs by now, those under way included.

    With nothing wanted, ``winner`` or ``is_exhausted`` says how the proof ended.
    """

    wanted: Prospect | None = None
    n_runs: int = 0
    winner: Prospect | None = None
    is_exhausted: bool = False


def plan_proof(found: Sequence[Prospect]) -> Plan:
    """Decide what to run next.

    Args:
        found: every candidate that is not lost.

    Returns:
        The plan: all seeds of a candidate that has a clean run, two at a time of one that has none.
    """
    if not found:
        return Plan(is_exhausted=True)
    best = min(found, key=lambda prospect: (prospect.index, prospect.candidate.number))
    if not best.n_missing:
        return Plan(winner=best)
    return Plan(wanted=best, n_runs=best.n_seeds if best.runs else min(2, best.n_seeds))
