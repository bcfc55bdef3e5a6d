"""What to prove next, as a pure function of what has been proven: no executor, no clock, no files.

A proof has two rounds. In the qualifying round a handful of candidates run once each over the full horizon, because
the short trial shows neither late spikes nor the final loss; the baseline runs along, whatever it does, as the mark to
beat and as a candidate of its own. If none of the handful survives, the next is sent; so it is, up to three handfuls in
all, if none beats the mark, or none is secure: clean, far from the spike threshold, and with neighbors in the search
space that were clean too. The best of the clean ones then runs on its remaining seeds; at its first spike the next best
takes its place.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

from stabletune.judgement.objective import over_seeds
from stabletune.study.proof.candidates import Candidate, next_candidates, survival_odds

BASELINE = 0
QUALIFIERS = 6
MOST_SENT_FOR_A_BETTER_ONE = 18
CALM_SCORE = 0.75
SECURE_ODDS = 0.75


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProofRun:
    """One finished proof run. ``objective`` is None unless it completed."""

    candidate: int
    purpose: Literal["confirmation", "baseline"]
    seed: int
    is_clean: bool
    spike_score: float
    objective: float | None
    steps: int
    reason: str
    horizon: int
    max_sharpness_ratio: float | None = None
    is_spiky: bool = False


@dataclasses.dataclass(frozen=True)
class Standing:
    """How a candidate stands after its runs so far; ``odds`` are those of one more clean run."""

    candidate: Candidate
    runs: tuple[ProofRun, ...]
    odds: float

    @property
    def is_lost(self) -> bool:
        """Whether one of its runs was not clean."""
        return any(not run.is_clean for run in self.runs)

    @property
    def is_calm(self) -> bool:
        """Whether no run came near a spike: every spike score at most 0.75 of the limit."""
        return all(run.spike_score <= CALM_SCORE for run in self.runs)

    @property
    def is_secure(self) -> bool:
        """Whether it is calm and likely to be clean again, by its own runs and its neighbors'."""
        return self.is_calm and self.odds >= SECURE_ODDS

    @property
    def merit(self) -> tuple[bool, bool, float]:
        """Smaller is better: secure ones first, then calm ones, then by objective at the full horizon."""
        return not self.is_secure, not self.is_calm, self.objective

    @property
    def objective(self) -> float:
        """The median at the full horizon; infinite before the first run."""
        objectives = [run.objective for run in self.runs if run.objective is not None]
        return over_seeds(objectives) if objectives else math.inf


@dataclasses.dataclass(frozen=True)
class Plan:
    """What the proof needs: ``wanted`` says how many runs in all each candidate should have by now.

    With nothing wanted that is not already under way, ``winner`` or ``is_exhausted`` says how the proof ended.
    """

    wanted: tuple[tuple[Candidate, int], ...] = ()
    wants_baseline: bool = False
    winner: Standing | None = None
    is_exhausted: bool = False


def plan_proof(
    candidates: Sequence[Candidate],
    sent: Sequence[int],
    runs: Sequence[ProofRun],
    *,
    n_seeds: int,
    fewest_sent: int = 0,
) -> Plan:
    """Decide what to run next.

    Args:
        candidates: every trial that looked clean.
        sent: numbers of the candidates sent so far, in order; their first run may still be under way.
        runs: the proof runs that have finished.
        n_seeds: clean runs that a recommendation needs.
        fewest_sent: candidates to send before anything is decided, if there are so many.

    Returns:
        The plan.
    """
    standings, newcomers = _standings(candidates, sent, runs)
    alive = [s for s in standings if not s.is_lost]
    mark = mark_to_beat(runs)
    wants_baseline = mark is None and bool(candidates)
    is_open = len(standings) % QUALIFIERS != 0 or len(standings) < fewest_sent or not alive
    if is_open and newcomers:
        return Plan(wanted=tuple((c, 1) for c in newcomers), wants_baseline=wants_baseline)
    if not alive:
        return Plan(is_exhausted=True)
    if mark is None or any(not s.runs for s in alive):
        return Plan(wants_baseline=wants_baseline)
    is_good_enough = any(s.is_secure and s.objective <= mark for s in alive)
    if not is_good_enough and newcomers and len(standings) < MOST_SENT_FOR_A_BETTER_ONE:
        return Plan(wanted=tuple((c, 1) for c in newcomers))
    return _plan_final(alive, n_seeds)


def mark_to_beat(runs: Sequence[ProofRun]) -> float | None:
    """The objective of the baseline's first run at the full horizon, infinite if it did not get there; None before."""
    first = next((run for run in runs if run.purpose == "baseline"), None)
    if first is None:
        return None
    return math.inf if first.objective is None else first.objective


def _plan_final(alive: Sequence[Standing], n_seeds: int) -> Plan:
    open_ones = [s for s in alive if s.is_calm or len(s.runs) < n_seeds]
    if not open_ones:
        return Plan(winner=min(alive, key=lambda s: s.merit))
    best = min(open_ones, key=lambda s: s.merit)
    if len(best.runs) >= n_seeds:
        return Plan(winner=best)
    return Plan(wanted=((best.candidate, n_seeds),))


def _standings(
    candidates: Sequence[Candidate], sent: Sequence[int], runs: Sequence[ProofRun]
) -> tuple[list[Standing], list[Candidate]]:
    """Those sent, the baseline always among them if its short trial was clean, and who would fill up the handful."""
    by_number = {c.number: c for c in candidates}
    numbers = [BASELINE, *(n for n in sent if n != BASELINE)]
    mark = tuple(r for r in runs if r.purpose == "baseline")[:1]
    own = {n: tuple(r for r in runs if _proves(r, n)) for n in numbers if n in by_number}
    if BASELINE in own:
        own[BASELINE] = mark + own[BASELINE]
    evidence = [(by_number[number], run.is_clean) for number, made in own.items() for run in made]
    standings = [Standing(by_number[n], made, survival_odds(by_number[n], evidence)) for n, made in own.items()]
    waiting = [c for c in candidates if c.number not in own]
    return standings, next_candidates(waiting, evidence, QUALIFIERS - len(standings) % QUALIFIERS)


def _proves(run: ProofRun, number: int) -> bool:
    return run.purpose == "confirmation" and run.candidate == number
