"""Candidates for the proof and what each promises: how good, how safe, and how many steps away."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stabletune.judgement.objective import over_seeds
from stabletune.study.prediction.observation import Observation
from stabletune.study.prediction.outlook import Outlook
from stabletune.study.proof.proof_runs import ProofRun, observed

REACH = 0.12
PRIOR_RUNS = 1.0
STEPS_WORTH = 0.1
SPIKES_WORTH = 5.0


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A trial without a spike: its number, the values that it was given, and what was seen of it."""

    number: int
    values: Mapping[str, Any]
    observation: Observation


@dataclasses.dataclass(frozen=True)
class Prospect:
    """A candidate that is not lost, as far as its proof has come.

    ``objective`` is predicted, or reached. ``regret`` is by how much its value exceeds the best candidate's beyond the
    noise between seeds, in shares of the way from no training to it. Its chance of a clean run is a beta distribution
    with ``n_clean`` of ``n_seen`` runs: the prediction as one run, then its own runs and, by their nearness, those of
    its neighbors.
    """

    candidate: Candidate
    runs: tuple[ProofRun, ...]
    objective: float
    regret: float
    n_clean: float
    n_seen: float
    n_seeds: int

    @property
    def n_missing(self) -> int:
        """Runs that its proof lacks."""
        return max(0, self.n_seeds - len(self.runs))

    @property
    def chance(self) -> float:
        """The chance that the next run is clean."""
        return self.n_clean / self.n_seen

    @property
    def clean_rate(self) -> float:
        """The expected share of clean runs once its proof is complete."""
        return (self.n_clean + self.n_missing) / (self.n_seen + self.n_missing)

    @property
    def index(self) -> float:
        r"""What to choose by, smaller is better: regret + 5 (1 - clean rate) + 0.1 E[proofs to run] / P(it holds).

        The last term is the expected cost of finding out, in whole proofs, for each time that it succeeds:
        :math:`\sum_{i<m} \prod_{j<i} p_j / n` over :math:`\prod_{i<m} p_i`, with m of n runs missing and
        :math:`p_i = (a + i) / (w + i)` the chance of the next one after i more clean ones. Opening candidates in the
        order of such an index, until the best one proven is below all others, is the optimal search among independent
        boxes of unknown content; here, where each run changes every index, it is a heuristic. A proof weighs as a tenth
        of the way from no training to the best, and so does a spike in fifty runs.

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
    reached = [_reached(outlook, c, own[c.number]) for c in alive]
    values = values + outlook.shift_of_short_trials(values, reached)
    for n, over_its_seeds in enumerate(reached):
        if over_its_seeds:
            values[n] = over_seeds(over_its_seeds)
    regrets = outlook.regrets(values, noise=seed_noise(reached))
    survival = outlook.survival([c.observation for c in alive])
    evidence = [(observed(run).place, run.is_clean) for run in runs if run.observation is not None]
    found = []
    for candidate, value, regret, chance in zip(alive, values, regrets, survival, strict=True):
        objective = outlook.objective_of(float(value), candidate.observation)
        n_seen, n_clean = PRIOR_RUNS, PRIOR_RUNS * float(chance)
        for place, is_clean in evidence:
            nearness = math.exp(-(math.dist(place, candidate.observation.place) ** 2) / (2.0 * REACH**2))
            n_seen, n_clean = n_seen + nearness, n_clean + nearness * is_clean
        runs_of_it = own[candidate.number]
        found.append(Prospect(candidate, runs_of_it, objective, float(regret), n_clean, n_seen, n_seeds))
    return found


def seed_noise(reached: Sequence[Sequence[float]]) -> float:
    """Standard deviation of a candidate's values between seeds, pooled over the candidates that have two or more."""
    deviations = [np.var(values, ddof=1) * (len(values) - 1) for values in reached if len(values) > 1]
    n_free = sum(len(values) - 1 for values in reached if len(values) > 1)
    return math.sqrt(sum(deviations) / n_free) if n_free else 0.0


def _reached(outlook: Outlook, candidate: Candidate, runs: Sequence[ProofRun]) -> list[float]:
    return [outlook.value_of(run.objective, candidate.observation) for run in runs if run.objective is not None]
