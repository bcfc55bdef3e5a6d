"""Candidates for the proof and what each promises: how good, how safe, and how many steps away."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from stabletune.judgement.objective import over_seeds
from stabletune.study.prediction.observation import Observation
from stabletune.study.prediction.outlook import Outlook

REACH = 0.12
PRIOR_RUNS = 1.0
STEPS_WORTH = 0.1
SPIKES_WORTH = 2.5


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A trial without a spike: its number, the values that it was given, and what was seen of it."""

    number: int
    values: Mapping[str, Any]
    observation: Observation


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProofRun:
    """One finished proof run. ``objective`` is None unless it completed; ``observation`` is None if it failed."""

    candidate: int
    purpose: Literal["confirmation", "baseline"]
    seed: int
    is_clean: bool
    spike_score: float
    objective: float | None
    steps: int
    reason: str
    horizon: int
    observation: Mapping[str, Any] | None = None
    max_sharpness_ratio: float | None = None
    is_spiky: bool = False


@dataclasses.dataclass(frozen=True)
class Prospect:
    """A candidate that is not lost, as far as its proof has come.

    ``regret`` is its predicted or reached value against the best candidate's, in shares of the way from no training to
    it. Its chance of a clean run is a beta distribution with ``n_clean`` of ``n_seen`` runs: the prediction for half
    of the two, its own runs and, by their nearness, those of its neighbors.
    """

    candidate: Candidate
    runs: tuple[ProofRun, ...]
    regret: float
    n_clean: float
    n_seen: float
    n_seeds: int

    @property
    def n_missing(self) -> int:
        """Runs that its proof lacks."""
        return max(0, self.n_seeds - len(self.runs))

    @property
    def clean_rate(self) -> float:
        """The expected share of clean runs once its proof is complete."""
        return (self.n_clean + self.n_missing) / (self.n_seen + self.n_missing)

    @property
    def index(self) -> float:
        r"""What to choose by, smaller is better: regret + 2.5 (1 - clean rate) + 0.1 E[proofs to run] / P(it holds).

        The last term is the expected cost of finding out, in whole proofs, for each time that it succeeds:
        :math:`\sum_{i<m} \prod_{j<i} p_j / n` over :math:`\prod_{i<m} p_i`, with m of n runs missing and
        :math:`p_i = (a + i) / (w + i)` the chance of the next one after i more clean ones. Opening candidates in the
        order of such an index, until the best one proven is below all others, is the optimal way to search among boxes
        of unknown content. A proof weighs as a tenth of the way from no training to the best, a spike in fifty runs
        half of that.

        Source: Weitzman, Optimal search for the best alternative, Econometrica 47 (1979), for one prize a box.
        """
        chances = [(self.n_clean + i) / (self.n_seen + i) for i in range(self.n_missing)]
        reached = np.cumprod([1.0, *chances])
        cost = float(reached[:-1].sum()) / self.n_seeds / max(float(reached[-1]), 1e-12)
        return self.regret + SPIKES_WORTH * (1.0 - self.clean_rate) + STEPS_WORTH * cost


def prospects(
    candidates: Sequence[Candidate], runs: Sequence[ProofRun], outlook: Outlook, *, n_seeds: int
) -> list[Prospect]:
    """Every candidate without a proof run that was not clean.

    Args:
        candidates: trials without a spike.
        runs: finished proof runs; the baseline's first counts for trial 0.
        outlook: fitted to trials and proof runs.
        n_seeds: clean runs that a proof needs.
    """
    own = {c.number: tuple(run for run in runs if run.candidate == c.number) for c in candidates}
    alive = [c for c in candidates if all(run.is_clean for run in own[c.number])]
    if not alive:
        return []
    values = outlook.values([c.observation for c in alive])
    for n, candidate in enumerate(alive):
        reached = [run.objective for run in own[candidate.number] if run.objective is not None]
        if reached:
            values[n] = outlook.value_of(over_seeds(reached), candidate.observation)
    regrets = outlook.regrets(values)
    survival = outlook.survival([c.observation for c in alive])
    evidence = [(_observed(run).place, run.is_clean) for run in runs if run.observation is not None]
    found = []
    for candidate, regret, chance in zip(alive, regrets, survival, strict=True):
        n_seen, n_clean = PRIOR_RUNS, PRIOR_RUNS * float(chance)
        for place, is_clean in evidence:
            nearness = math.exp(-(math.dist(place, candidate.observation.place) ** 2) / (2.0 * REACH**2))
            n_seen, n_clean = n_seen + nearness, n_clean + nearness * is_clean
        found.append(Prospect(candidate, own[candidate.number], float(regret), n_clean, n_seen, n_seeds))
    return found


def proof_observations(runs: Sequence[ProofRun]) -> list[Observation]:
    """What the proof runs saw."""
    return [_observed(run) for run in runs if run.observation is not None]


def _observed(run: ProofRun) -> Observation:
    assert run.observation is not None
    return Observation(**run.observation)
