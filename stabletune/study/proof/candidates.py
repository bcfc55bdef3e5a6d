"""Which finished trials are worth a proof, and in which order."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

PRIOR_WEIGHT = 0.5
REACH = 0.12
EVEN_ODDS = 0.5


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A trial that looked clean: its number, values, objective, forecast risk, and place in the unit cube."""

    number: int
    values: Mapping[str, Any]
    objective: float
    risk: float
    place: tuple[float, ...]


Evidence = Sequence[tuple[Candidate, bool]]
"""Proof runs so far: whose, and whether it was clean."""


def survival_odds(candidate: Candidate, evidence: Evidence) -> float:
    """Probability that a proof run of a candidate is clean: its forecast, corrected by the runs at and near its place.

    ``(w (1 - risk) + sum_j k_j y_j) / (w + sum_j k_j)`` with y_j = 1 for a clean run, 0 for another, and
    ``k_j = exp(-r_j^2 / (2 h^2))`` over the distance r_j in the unit cube of the search space; w = 0.5, h = 0.12. A
    kernel estimate (Nadaraya and Watson, 1964) with the forecast as half a run.

    Args:
        candidate: whose odds.
        evidence: proof runs, of the candidate itself and of others.
    """
    weight, total = PRIOR_WEIGHT, PRIOR_WEIGHT * (1.0 - candidate.risk)
    for other, is_clean in evidence:
        nearness = math.exp(-(math.dist(candidate.place, other.place) ** 2) / (2.0 * REACH**2))
        weight += nearness
        total += nearness * is_clean
    return total / weight


def next_candidates(candidates: Sequence[Candidate], evidence: Evidence, n: int) -> list[Candidate]:
    """The ``n`` of those not sent yet to send next, boldest and safest in turn.

    Bold: the best objective among those more likely than not to survive, then the likeliest. Safe: the likeliest among
    the better half by objective. The short trial favors bold settings, the full horizon often does not.
    """
    odds = {c.number: survival_odds(c, evidence) for c in candidates}
    bold = sorted(
        candidates,
        key=lambda c: (0.0, c.objective) if odds[c.number] >= EVEN_ODDS else (1.0 - odds[c.number], c.objective),
    )
    better_half = sorted(candidates, key=lambda c: c.objective)[: (len(candidates) + 1) // 2]
    safe = sorted(better_half, key=lambda c: (-odds[c.number], c.objective))
    turns = [c for pair in itertools.zip_longest(bold, safe) for c in pair if c is not None]
    return list({c.number: c for c in turns}.values())[:n]
