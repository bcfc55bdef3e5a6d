"""The front between speed and stability: candidates of which no other is both faster and safer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from stabletune.study.proof.prospects import Prospect


def front(found: Sequence[Prospect], winner: Prospect | None) -> list[dict[str, Any]]:
    """The points of the front from the fastest to the safest, the recommended one always among them.

    Args:
        found: candidates that are not lost.
        winner: the recommended one.

    Returns:
        Plain data for each point: ``trial``, ``settings`` (what was searched), ``objective`` (reached at the full
        horizon, else predicted), ``clean_rate`` (the predicted share of clean runs at the full horizon), ``n_proven``
        (clean runs so far) and ``is_recommended``.
    """
    known = [prospect for prospect in found if math.isfinite(prospect.objective)]
    chosen = None if winner is None else winner.candidate.number
    kept, best = [], -math.inf
    for prospect in sorted(known, key=lambda p: (p.objective, -p.chance, p.candidate.number)):
        if prospect.chance > best or prospect.candidate.number == chosen:
            kept.append(prospect)
        best = max(best, prospect.chance)
    return [
        {
            "trial": prospect.candidate.number,
            "settings": dict(prospect.candidate.values),
            "objective": prospect.objective,
            "clean_rate": round(prospect.chance, 4),
            "n_proven": len(prospect.runs),
            "is_recommended": prospect.candidate.number == chosen,
        }
        for prospect in kept
    ]


def point_of(points: Sequence[dict[str, Any]]) -> dict[str, int] | None:
    """Which point the recommendation is, counted from the fastest, and of how many; None if it is none of them."""
    for n, point in enumerate(points, start=1):
        if point["is_recommended"]:
            return {"point": n, "of": len(points)}
    return None
