"""The Optuna study behind a search: opened, resumed, and told through one door."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from stabletune.config import Config
from stabletune.errors import OutputFolderError
from stabletune.hyperparameters import WORKLOAD_ARGS
from stabletune.records import TrialResult
from stabletune.study.distributions import distributions, stored_params, suggest
from stabletune.study.feasibility import CONSTRAINT, instability, told_objective
from stabletune.study.samplers import load_sampler


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
        self._storage = _open_storage(config.storage_url, journal_path)
        try:
            self.study = optuna.create_study(
                storage=self._storage,
                study_name=config.name,
                load_if_exists=resume,
                sampler=load_sampler(config.sampler, config.seed),
            )
        except optuna.exceptions.DuplicatedStudyError as error:
            raise OutputFolderError(
                f"storage: must not hold a study named {config.name!r} yet, but it does. "
                "Add --resume to go on with it, or change name."
            ) from error

    def ask(self) -> tuple[int, dict[str, Any]]:
        """A new trial: its number and the values of the search space."""
        trial = self.study.ask()
        self._running[trial.number] = trial
        return trial.number, suggest(trial, self._config.search_space)

    def add_baseline(self) -> int:
        """Trial 0 with today's settings, which may lie outside the search space."""
        space = self._config.search_space
        arguments = {WORKLOAD_ARGS + name: value for name, value in self._config.arguments().items()}
        values = self._config.settings() | arguments
        inside = stored_params(space, values)
        known = {stored: distribution for stored, distribution in distributions(space).values() if stored in inside}
        self.study.add_trial(optuna.trial.create_trial(state=TrialState.RUNNING, params=inside, distributions=known))
        self._take_up(self.study.get_trials(deepcopy=False)[0])
        return 0

    def unfinished(self) -> list[tuple[int, dict[str, Any]]]:
        """Trials that a crash left running, with the values they were given; to be run again under their number."""
        found = []
        for frozen in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            trial = self._take_up(frozen)
            values = {} if frozen.number == 0 else suggest(trial, self._config.search_space)
            found.append((frozen.number, values))
        return found

    def tell(self, result: TrialResult, attributes: Mapping[str, Any]) -> None:
        """Store a finished trial: attributes first, so that a finished trial is always a whole one."""
        trial = self._running.pop(result.spec.number)
        for name, value in attributes.items():
            trial.set_user_attr(name, value)
        if result.status == "failed":
            self.study.tell(result.spec.number, state=TrialState.FAIL)
            return
        trial.set_constraint(CONSTRAINT, instability(result))
        if result.status == "pruned":
            trial.report(float(result.losses[-1]), result.steps)
            self.study.tell(result.spec.number, state=TrialState.PRUNED)
            return
        self.study.tell(result.spec.number, told_objective(result))

    def finished(self) -> list[FrozenTrial]:
        """Every finished trial, in order of number."""
        return [trial for trial in self.study.get_trials(deepcopy=False) if trial.state.is_finished()]

    def fresh_seed(self) -> int:
        """A seed that no run of this study has used; noted before it is used, so that a crash cannot repeat it."""
        n_used = int(self.attribute("fresh_seeds_used", 0)) + 1
        self.set_attribute("fresh_seeds_used", n_used)
        return (self._config.seed + n_used) % 2**32

    def discard(self) -> None:
        """Delete the study from its storage."""
        optuna.delete_study(study_name=self.study.study_name, storage=self._storage)

    def attribute(self, name: str, default: Any) -> Any:
        """An attribute of the study."""
        return self.study.user_attrs.get(name, default)

    def set_attribute(self, name: str, value: Any) -> None:
        """Store an attribute of the study, at once."""
        self.study.set_user_attr(name, value)

    def _take_up(self, frozen: FrozenTrial) -> Trial:
        trial = self._running[frozen.number] = Trial(self.study, frozen._trial_id)
        return trial


def _open_storage(url: str | None, journal_path: Path) -> Any:
    if url is not None:
        return url
    backend = JournalFileBackend(str(journal_path))
    return optuna.storages.JournalStorage(backend)
