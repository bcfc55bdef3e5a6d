"""The Optuna study behind a search: opened, resumed, and told through one door."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from stabletune.config import Config
from stabletune.errors import ConfigError, OutputFolderError
from stabletune.hyperparameters import WORKLOAD_ARGS
from stabletune.records import TrialResult
from stabletune.space import SearchSpace
from stabletune.study.distributions import distributions, is_inside, nearest_params, suggest
from stabletune.study.feasibility import CONSTRAINT, instability, told_objective
from stabletune.study.samplers import load_judging_sampler, load_sampler
from stabletune.study.storage import FORMAT, RECORDS_FORMAT, check_format, open_storage

OUTSIDE = "lies_outside_the_search_space"
RECORD = "record"
OPEN_STEPS = "steps_of_open_trial:"


@dataclasses.dataclass(frozen=True)
class Judged:
    """A finished trial as it is judged today: its settings, its value (smaller is better), feasible at or below 0."""

    settings: Mapping[str, Any]
    value: float
    constraint: float


class SearchStudy:
    """Ask and tell over one Optuna study; attributes of the study survive a crash with it.

    Args:
        config: the resolved configuration.
        journal_path: the journal file, used unless ``config.storage`` names a database.
        resume: whether the study must exist already, or must not.
    """

    def __init__(self, config: Config, journal_path: Path, *, resume: bool) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        self._config = config
        self._running: dict[int, Trial] = {}
        try:
            self._storage = open_storage(config.storage_url, journal_path, resume=resume)
            directions = [StudyDirection.MINIMIZE] * (2 if config.objective.tradeoff else 1)
            if resume:
                self.study = optuna.load_study(storage=self._storage, study_name=config.name)
            else:
                self.study = optuna.create_study(storage=self._storage, study_name=config.name, directions=directions)
                self.study.set_user_attr(RECORDS_FORMAT, FORMAT)
        except KeyError as error:
            raise OutputFolderError(
                f"{config.output}: its study {config.name!r} must still be in {config.storage or journal_path}, "
                "but it is gone. Restore it, or start another search."
            ) from error
        except optuna.exceptions.DuplicatedStudyError as error:
            raise OutputFolderError(
                f"storage: must not hold a study named {config.name!r} yet, but it does. "
                "Add --resume to go on with it, or change name."
            ) from error
        except (SQLAlchemyError, ImportError) as error:
            cause = error.__cause__ if isinstance(error, ImportError) and error.__cause__ else error  # names the driver
            raise ConfigError(
                f"storage: must be a database that can be opened, but got {type(cause).__name__}: "
                f"{str(cause).splitlines()[0].rstrip('.')}. Check the URL, the server and its Python driver."
            ) from error
        check_format(self.study, config.output)
        # A resumed sampler that began with the same seed would propose the same values again.
        seed = (config.seed + len(self.study.get_trials(deepcopy=False))) % 2**32
        self._judging = load_judging_sampler(config.sampler, seed)
        self.study.sampler = load_sampler("random" if self._judging else config.sampler, seed)

    def ask(self, judged: Callable[[], Sequence[Judged]]) -> tuple[int, dict[str, Any]]:
        """A new trial: its number and the values of the search space.

        A sampler that reads them is shown the finished trials as ``judged`` sees them today,
        which is not how they were told; any other reads the study itself.
        """
        space = self._config.search_space
        if self._judging is None:
            trial = self.study.ask()
            self._running[trial.number] = trial
            return trial.number, suggest(trial, space)
        past = optuna.create_study(sampler=self._judging, directions=self.study.directions)
        known = [trial for trial in judged() if is_inside(space, trial.settings)]
        past.add_trials([_finished(trial, space, has_tradeoff=self._has_tradeoff) for trial in known])
        for under_way in self._running.values():
            if not self._is_outside(under_way.number):
                past.add_trial(
                    optuna.trial.create_trial(
                        state=TrialState.RUNNING, params=under_way.params, distributions=under_way.distributions
                    )
                )
        return self._start(past.ask(dict(distributions(space).values())).params)

    def add(self, values: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        """A new trial with given values, or with those of the search space that are nearest to them."""
        return self._start(nearest_params(self._config.search_space, values))

    def _start(self, params: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        space = self._config.search_space
        allowed = dict(distributions(space).values())
        self.study.add_trial(
            optuna.trial.create_trial(state=TrialState.RUNNING, params=dict(params), distributions=allowed)
        )
        trial = self._take_up(self.study.get_trials(deepcopy=False)[-1])
        return trial.number, suggest(trial, space)

    def add_baseline(self) -> int:
        """Trial 0 with today's settings, which may lie outside the search space."""
        space = self._config.search_space
        arguments = {WORKLOAD_ARGS + name: value for name, value in self._config.arguments().items()}
        values = self._config.settings() | arguments
        params = nearest_params(space, values)
        self.study.add_trial(
            optuna.trial.create_trial(
                state=TrialState.RUNNING,
                params=params,
                distributions=dict(distributions(space).values()),
                user_attrs={OUTSIDE: not is_inside(space, values)},
            )
        )
        self._take_up(self.study.get_trials(deepcopy=False)[0])
        return 0

    def unfinished(self) -> list[tuple[int, dict[str, Any]]]:
        """Trials that a crash left running, with the values they were given; to be run again under their number.

        What their finished runs had cost is counted as abandoned.
        """
        found = []
        for frozen in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            trial = self._take_up(frozen)
            values = {} if frozen.number == 0 else suggest(trial, self._config.search_space)
            found.append((frozen.number, values))
            open_steps = int(self.attribute(f"{OPEN_STEPS}{frozen.number}", 0))
            if open_steps:
                self.note_open_steps(frozen.number, 0)
                self.add_abandoned_steps(open_steps)
        return found

    def tell(self, result: TrialResult, record: Mapping[str, Any], *, worst: float | None) -> None:
        """Store a finished trial: its record first, so that a finished trial is always a whole one."""
        trial = self._running.pop(result.spec.number)
        trial.set_user_attr(RECORD, dict(record))
        if result.status == "failed" or self._is_outside(result.spec.number):
            self.study.tell(result.spec.number, state=TrialState.FAIL)
            return
        if not self._has_tradeoff:
            trial.set_constraint(CONSTRAINT, instability(result))
        if result.status == "pruned":
            if not self._has_tradeoff:  # Optuna's studies of several objectives keep no intermediate values
                trial.report(float(result.losses[-1]), result.steps)
            self.study.tell(result.spec.number, state=TrialState.PRUNED)
            return
        objective = told_objective(result, worst)
        self.study.tell(result.spec.number, [objective, instability(result)] if self._has_tradeoff else objective)

    def records(self) -> list[dict[str, Any]]:
        """The records of the finished trials, in order of number."""
        trials = self.study.get_trials(deepcopy=False)
        return [t.user_attrs[RECORD] for t in trials if t.state.is_finished() and RECORD in t.user_attrs]

    def fresh_seed(self) -> int:
        """A seed that no run of this study has used; noted before it is used, so that a crash cannot repeat it."""
        n_used = int(self.attribute("fresh_seeds_used", 0)) + 1
        self.set_attribute("fresh_seeds_used", n_used)
        return (self._config.seed + n_used) % 2**32

    def trial_seeds(self, n: int) -> list[int]:
        """The seeds of the second and further runs of every trial: drawn once, so that all trials share them."""
        seeds: list[int] = list(self.attribute("trial_seeds", []))
        if len(seeds) < n:
            seeds += [self.fresh_seed() for _ in range(n - len(seeds))]
            self.set_attribute("trial_seeds", seeds)
        return seeds[:n]

    def discard(self) -> None:
        """Delete the study from its storage."""
        optuna.delete_study(study_name=self.study.study_name, storage=self._storage)

    def attributes(self, prefix: str) -> list[Any]:
        """The attributes of the study whose names begin with ``prefix``, in order of name."""
        found = self.study.user_attrs
        return [found[name] for name in sorted(found) if name.startswith(prefix)]

    def attribute(self, name: str, default: Any) -> Any:
        """An attribute of the study."""
        return self.study.user_attrs.get(name, default)

    def set_attribute(self, name: str, value: Any) -> None:
        """Store an attribute of the study, at once."""
        self.study.set_user_attr(name, value)

    def note_open_steps(self, number: int, steps: int) -> None:
        """Keep the steps of the finished runs of a trial that needs more of them."""
        self.set_attribute(f"{OPEN_STEPS}{number}", steps)

    def add_abandoned_steps(self, steps: int) -> None:
        """Count optimizer steps of a run that gave no result."""
        self.set_attribute("steps_abandoned", self.abandoned_steps + steps)

    @property
    def abandoned_steps(self) -> int:
        """Optimizer steps of runs that gave no result, as far as they were reported."""
        return int(self.attribute("steps_abandoned", 0))

    @property
    def _has_tradeoff(self) -> bool:
        """Whether instability is an objective of its own, in place of a constraint."""
        return self._config.objective.tradeoff

    def _is_outside(self, number: int) -> bool:
        """Whether a trial's true values lie outside the space, so that the sampler must not learn from them."""
        return bool(self.study.get_trials(deepcopy=False)[number].user_attrs.get(OUTSIDE))

    def _take_up(self, frozen: FrozenTrial) -> Trial:
        trial = self._running[frozen.number] = Trial(self.study, frozen._trial_id)
        return trial


def _finished(trial: Judged, space: SearchSpace, *, has_tradeoff: bool) -> FrozenTrial:
    return optuna.trial.create_trial(
        params=nearest_params(space, trial.settings),
        distributions=dict(distributions(space).values()),
        values=[trial.value, trial.constraint] if has_tradeoff else [trial.value],
        constraints={} if has_tradeoff else {CONSTRAINT: trial.constraint},
    )
