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


def survival_odds(candidate: Candidate, proofs: Sequence[tuple[Candidate, bool]]) -> float:
    """Probability that a candidate survives the proof: its own forecast, corrected by proofs nearby.

    ``(w (1 - risk) + sum_j k_j y_j) / (w + sum_j k_j)`` with y_j = 1 for a proof survived, 0 for one lost, and
    ``k_j = exp(-r_j^2 / (2 h^2))`` over the distance r_j in the unit cube of the search space; w = 0.5, h = 0.12.

    Args:
        candidate: whose odds.
        proofs: candidates proven so far and whether they survived.
    """
    weight, total = PRIOR_WEIGHT, PRIOR_WEIGHT * (1.0 - candidate.risk)
    for other, survived in proofs:
        nearness = math.exp(-(math.dist(candidate.place, other.place) ** 2) / (2.0 * REACH**2))
        weight += nearness
        total += nearness * survived
    return total / weight


def next_candidates(
    candidates: Sequence[Candidate], proofs: Sequence[tuple[Candidate, bool]], n: int
) -> list[Candidate]:
    """The ``n`` to send next, boldest and safest in turn.

    Bold: the best objective among those more likely than not to survive, then the likeliest. Safe: the likeliest among
    the better half by objective. The short trial favors bold settings, the full horizon often does not.
    """
    tried = {other.number for other, _ in proofs}
    left = [c for c in candidates if c.number not in tried]
    odds = {c.number: survival_odds(c, proofs) for c in left}
    bold = sorted(
        left, key=lambda c: (0.0, c.objective) if odds[c.number] >= EVEN_ODDS else (1.0 - odds[c.number], c.objective)
    )
    better_half = sorted(left, key=lambda c: c.objective)[: (len(left) + 1) // 2]
    safe = sorted(better_half, key=lambda c: (-odds[c.number], c.objective))
    turns = [c for pair in itertools.zip_longest(bold, safe) for c in pair if c is not None]
    return list({c.number: c for c in turns}.values())[:n]
