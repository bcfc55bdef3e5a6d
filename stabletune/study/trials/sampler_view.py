"""What a sampler that reads judged trials is shown: a study in memory, which grows until it is built anew."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from stabletune.space import SearchSpace
from stabletune.study.distributions import distributions, is_inside, nearest_params
from stabletune.study.feasibility import CONSTRAINT


@dataclasses.dataclass(frozen=True)
class Judged:
    """A finished trial as it is judged today: its settings, its value (smaller is better), feasible at or below 0."""

    settings: Mapping[str, Any]
    value: float
    constraint: float


class SamplerView:
    """The finished trials as they are judged, those under way as running; none that lies outside the space.

    Args:
        sampler: which proposes.
        space: of the search.
        directions: of the study; two where instability is an objective of its own, in place of a constraint.
        judged: the finished trials.
        under_way: trials that run, all inside the space.

    Cost: that of every trial to build it, that of one to go on with it.
    """

    def __init__(
        self,
        sampler: BaseSampler,
        space: SearchSpace,
        directions: Sequence[StudyDirection],
        *,
        judged: Iterable[Judged],
        under_way: Iterable[Trial | FrozenTrial],
    ) -> None:
        self._space, self._has_tradeoff = space, len(directions) > 1
        self._past = optuna.create_study(sampler=sampler, directions=directions)
        self._number_here: dict[int, int] = {}
        known = [self._finished(trial) for trial in judged if is_inside(space, trial.settings)]
        self._past.add_trials(known)
        for here, trial in enumerate(under_way, start=len(known)):
            self._past.add_trial(
                optuna.trial.create_trial(
                    state=TrialState.RUNNING, params=trial.params, distributions=trial.distributions
                )
            )
            self._number_here[trial.number] = here

    def propose(self) -> tuple[int, dict[str, Any]]:
        """The parameters of a new trial, which runs here from now on under the number that comes first."""
        asked = self._past.ask(dict(distributions(self._space).values()))
        return asked.number, asked.params

    def call(self, here: int, number: int) -> None:
        """Tell which trial of the search a proposal has become."""
        self._number_here[number] = here

    def end(self, number: int, judged: Judged | None) -> None:
        """A trial has ended; without a judgement it is forgotten."""
        here = self._number_here.pop(number, None)
        if here is not None:
            self._past.tell(here, state=TrialState.FAIL)  # what takes its place has the judged settings and value
        if judged is not None and is_inside(self._space, judged.settings):
            self._past.add_trial(self._finished(judged))

    def _finished(self, trial: Judged) -> FrozenTrial:
        return optuna.trial.create_trial(
            params=nearest_params(self._space, trial.settings),
            distributions=dict(distributions(self._space).values()),
            values=[trial.value, trial.constraint] if self._has_tradeoff else [trial.value],
            constraints={} if self._has_tradeoff else {CONSTRAINT: trial.constraint},
        )
