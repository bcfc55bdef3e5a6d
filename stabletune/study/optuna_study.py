"""The Optuna study behind a search: opened, resumed, and told through one door."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Collection, Container, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from stabletune.config import Config
from stabletune.hyperparameters import WORKLOAD_ARGS
from stabletune.records import TrialResult
from stabletune.study.distributions import distributions, is_inside, nearest_params, suggest
from stabletune.study.feasibility import tell
from stabletune.study.samplers import load_judging_sampler, load_sampler
from stabletune.study.sharing.access import SharedDatabase
from stabletune.study.sharing.drivers import Drivers
from stabletune.study.sharing.storage import Beginning, open_study, study_is_gone
from stabletune.study.trials.sampler_view import Judged, SamplerView

OUTSIDE = "lies_outside_the_search_space"
RECORD = "record"
OPEN_STEPS = "steps_of_open_trial:"
DRIVER = "driver"
BETWEEN_SEEDS_OF_DRIVERS = 1_000_003

T = TypeVar("T")


class SearchStudy:
    """Ask and tell over one Optuna study; attributes of the study survive a crash with it.

    Args:
        config: the resolved configuration.
        journal_path: the journal file, used unless ``config.storage`` names a database.
        beginning: whether the study must be there (``again``), must not (``anew``), or may: one that drivers share, or
            one that a kill left without a finished trial (``again or anew``).
        driver: the name of the driver that goes through with the search, None for one who only reads or draws seeds.
    """

    def __init__(
        self, config: Config, journal_path: Path, *, beginning: Beginning = "anew", driver: str | None = None
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        self._config = config
        self._running: dict[int, Trial] = {}
        self._outside: set[int] = set()
        self._view: SamplerView | None = None
        self.study, self._access = open_study(config, journal_path, beginning)
        self.drivers: Drivers | None = None
        if driver is not None and isinstance(self._access, SharedDatabase):
            self.drivers = Drivers(self.study, driver)
        # A sampler that begins with the seed of an earlier one, or of another driver's, would propose the same values.
        n_trials = len(self.trials())
        n_before = self.drivers.join(self.exclusively) if self.drivers else 0
        self.has_joined = n_before > 0
        seed = (config.seed + n_trials + n_before * BETWEEN_SEEDS_OF_DRIVERS) % 2**32
        self._judging = load_judging_sampler(config.sampler, seed)
        self.study.sampler = load_sampler("random" if self._judging else config.sampler, seed)

    def exclusively(self, action: Callable[[], T]) -> T:
        """Run what reads and changes the study while no other driver does, perhaps twice; see ``SharedDatabase``."""
        return self._access.exclusively(action)

    def leave(self) -> None:
        """Sign off from the other drivers, if there can be any."""
        if self.drivers is None:
            return
        self.drivers.fall_silent()
        if not self._access.is_lost:
            with contextlib.suppress(KeyError):  # a study that is gone has no drivers
                self.exclusively(self.drivers.sign_off)

    def ask(self, judged: Callable[[], Sequence[Judged]], *, is_anew: bool = True) -> tuple[int, dict[str, Any]]:
        """A new trial: its number and the values of the search space.

        A sampler that reads them is shown the finished trials as ``judged`` sees them today,
        which is not how they were told; any other reads the study itself. Unless ``is_anew`` it goes on with what it
        was shown last, and the trials that have ended since as ``show`` was given them.
        """
        space = self._config.search_space
        if self._judging is None:
            trial = self.study.ask()
            self._running[trial.number] = trial
            for name, value in self._signature.items():
                trial.set_user_attr(name, value)
            return trial.number, suggest(trial, space)
        if is_anew or self._view is None or self.drivers is not None:  # of other drivers' trials none is told
            under_way = self._running_inside()
            self._view = SamplerView(self._judging, space, self.study.directions, judged=judged(), under_way=under_way)
        here, params = self._view.propose()
        number, values = self._start(params)
        self._view.call(here, number)
        return number, values

    def show(self, number: int, judged: Callable[[], Judged | None]) -> None:
        """Show a sampler that reads them a trial that has ended, before all are judged anew; None: it says nothing."""
        if self._view is not None:
            self._view.end(number, judged())

    def add(self, values: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        """A new trial with given values, or with those of the search space that are nearest to them."""
        return self._start(nearest_params(self._config.search_space, values))

    def add_baseline(self) -> int:
        """Trial 0 with today's settings, which may lie outside the search space."""
        space = self._config.search_space
        values = self._config.settings() | {WORKLOAD_ARGS + n: v for n, v in self._config.arguments().items()}
        return self._start(nearest_params(space, values), {OUTSIDE: not is_inside(space, values)})[0]

    def _start(
        self, params: Mapping[str, Any], attributes: Mapping[str, Any] | None = None
    ) -> tuple[int, dict[str, Any]]:
        space = self._config.search_space
        new = optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params=dict(params),
            distributions=dict(distributions(space).values()),
            user_attrs={**self._signature, **(attributes or {})},
        )
        # the storage says which trial it made; the study would have to list them all
        trial_id = self.study._storage.create_new_trial(self.study._study_id, template_trial=new)
        trial = self._hold(self.study._storage.get_trial(trial_id))
        return trial.number, suggest(trial, space)

    def _hold(self, frozen: FrozenTrial) -> Trial:
        """Keep a trial that this driver runs."""
        trial = self._running[frozen.number] = Trial(self.study, frozen._trial_id)
        if frozen.user_attrs.get(OUTSIDE):  # the sampler must not learn from it: its values are not those stored
            self._outside.add(frozen.number)
        return trial

    def _running_inside(self) -> Sequence[Trial | FrozenTrial]:
        """The trials under way whose values the sampler may know, those of other drivers too."""
        if self.drivers is None:
            return [trial for number, trial in self._running.items() if number not in self._outside]
        return [t for t in self.trials() if t.state == TrialState.RUNNING and not t.user_attrs.get(OUTSIDE)]

    def unfinished(self, held: Container[int]) -> list[int]:
        """Trials under way that no living driver runs, and this one does not hold; to be taken up."""
        return [n for n, is_elsewhere in self._under_way(held) if not is_elsewhere]

    def n_elsewhere(self, held: Container[int]) -> int:
        """How many trials other living drivers run."""
        return sum(is_elsewhere for _, is_elsewhere in self._under_way(held))

    def _under_way(self, held: Container[int]) -> list[tuple[int, bool]]:
        others = self.drivers.others_alive() if self.drivers else set()
        running = (trial for trial in self.trials() if trial.state == TrialState.RUNNING)
        return [(trial.number, trial.user_attrs.get(DRIVER) in others) for trial in running if trial.number not in held]

    def take_up(self, number: int) -> dict[str, Any]:
        """The values of a trial that a crash left running, to be run again under its number.

        What its finished runs had cost is counted as abandoned.
        """
        trial = self._hold(self.trials()[number])
        for name, value in self._signature.items():
            trial.set_user_attr(name, value)
        open_steps = int(self.attribute(f"{OPEN_STEPS}{number}", 0))
        if open_steps:
            self.note_open_steps(number, 0)
            self.add_abandoned_steps(open_steps)
        return {} if number == 0 else suggest(trial, self._config.search_space)

    def tell(self, result: TrialResult, record: Mapping[str, Any], *, worst: float | None) -> bool:
        """Store a finished trial: its record first, so that a finished trial is always a whole one.

        False where another driver has taken it over, hearing nothing from this one: its steps count as abandoned.
        """
        is_own = self.exclusively(lambda: self._store(result, record, worst))
        self._running.pop(result.spec.number, None)
        return is_own

    def _store(self, result: TrialResult, record: Mapping[str, Any], worst: float | None) -> bool:
        number = result.spec.number
        if self.taken_over([number]):
            self.add_abandoned_steps(record["row"]["steps"])
            return False
        has_tradeoff = self._config.objective.tradeoff
        trial = Trial(self.study, self._running[number]._trial_id)  # that one would remember a try that was undone
        trial.set_user_attr(RECORD, dict(record))
        tell(self.study, trial, result, worst=worst, is_outside=number in self._outside, has_tradeoff=has_tradeoff)
        return True

    def taken_over(self, held: Collection[int]) -> list[int]:
        """Which of these trials, which this driver holds, have become another one's."""
        if self.drivers is None or not held:
            return []
        trials = self.trials()
        return [number for number in held if trials[number].user_attrs.get(DRIVER) != self.drivers.own]

    def trials(self) -> list[FrozenTrial]:
        """Every trial as it is stored now, in order of number."""
        return self._reach(lambda: self.study.get_trials(deepcopy=False))

    def records(self) -> list[dict[str, Any]]:
        """The records of the finished trials, in order of number."""
        return [t.user_attrs[RECORD] for t in self.trials() if t.state.is_finished() and RECORD in t.user_attrs]

    def record(self, number: int) -> dict[str, Any]:
        """The record of a finished trial: with a journal the one that Optuna keeps, so that it is in memory once."""

        def read() -> dict[str, Any]:
            storage = self.study._storage
            trial_id = storage.get_trial_id_from_study_id_trial_number(self.study._study_id, number)
            record: dict[str, Any] = storage.get_trial(trial_id).user_attrs[RECORD]
            return record

        return self._reach(read)

    def fresh_seed(self) -> int:
        """A seed that no run of this study has used; noted before it is used, so that a crash cannot repeat it."""
        return (self._config.seed + self._add_to("fresh_seeds_used", 1)) % 2**32

    def trial_seeds(self, n: int) -> list[int]:
        """The seeds of the second and further runs of every trial: drawn once, so that all trials share them."""
        seeds: list[int] = list(self.attribute("trial_seeds", []))
        if len(seeds) < n:
            seeds += [self.fresh_seed() for _ in range(n - len(seeds))]
            self.set_attribute("trial_seeds", seeds)
        return seeds[:n]

    @property
    def is_unused(self) -> bool:
        """Whether it has no trial yet, and no other driver that is about to begin one."""
        return not self.trials() and not (self.drivers and self.drivers.others_alive())

    def discard(self) -> None:
        """Delete the study from its storage, if another driver has not done so."""
        if self.drivers is not None:
            self.drivers.fall_silent()
            self.drivers = None
        with contextlib.suppress(KeyError):
            self.exclusively(lambda: optuna.delete_study(study_name=self._config.name, storage=self.study._storage))

    def attributes(self, prefix: str) -> list[Any]:
        """The attributes of the study whose names begin with ``prefix``, in order of name."""
        return [value for name, value in sorted(self._attributes().items()) if name.startswith(prefix)]

    def attribute(self, name: str, default: Any) -> Any:
        """An attribute of the study."""
        return self._attributes().get(name, default)

    def set_attribute(self, name: str, value: Any) -> None:
        """Store an attribute of the study, at once."""
        self._reach(lambda: self.study.set_user_attr(name, value))

    def _attributes(self) -> dict[str, Any]:
        return self._reach(lambda: self.study.user_attrs)

    def _reach(self, operation: Callable[[], T]) -> T:
        """One operation of the storage, which knows nothing of the study once it is deleted."""
        try:
            return self.exclusively(operation)
        except KeyError as error:
            raise study_is_gone(self._config) from error

    def _add_to(self, name: str, n: int) -> int:
        """Count on in an attribute of the study."""

        def add() -> int:
            total = int(self.attribute(name, 0)) + n
            self.set_attribute(name, total)
            return total

        return self.exclusively(add)

    def note_open_steps(self, number: int, steps: int) -> None:
        """Keep the steps of the finished runs of a trial that needs more of them."""
        self.set_attribute(f"{OPEN_STEPS}{number}", steps)

    def add_abandoned_steps(self, steps: int) -> None:
        """Count optimizer steps of a run that gave no result."""
        self._add_to("steps_abandoned", steps)

    @property
    def abandoned_steps(self) -> int:
        """Optimizer steps of runs that gave no result, as far as they were reported."""
        return int(self.attribute("steps_abandoned", 0))

    @property
    def _signature(self) -> dict[str, str]:
        """What names the driver that runs a trial; nothing where there can be only one."""
        return {DRIVER: self.drivers.own} if self.drivers else {}
