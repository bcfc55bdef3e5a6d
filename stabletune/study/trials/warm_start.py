"""What earlier searches teach a new one: their recommended settings, and their runs if the task is the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stabletune.config import Config, load_config
from stabletune.errors import ConfigError, OutputFolderError
from stabletune.hyperparameters import WORKLOAD_ARGS
from stabletune.results.store import RunFolder
from stabletune.study.optuna_study import RECORD, SearchStudy
from stabletune.study.prediction.observation import Observation
from stabletune.study.prediction.outlook import REMEMBERED, sampled
from stabletune.study.prediction.place import place_of
from stabletune.study.proof.confirm import PROOF_RUN
from stabletune.study.proof.proof_runs import proof_observations, stored_runs
from stabletune.study.sharing.storage import read_study

LESSON, TO_TRY = "lesson:", "settings_to_try"
SAME_TASK = ("workload", "schedule")
SAME_OBJECTIVE = ("metric", "source", "target")


@dataclasses.dataclass(frozen=True)
class Lessons:
    """Settings to try first, and earlier runs: the settings of each and what it showed, in the new search space."""

    to_try: tuple[Mapping[str, Any], ...] = ()
    runs: tuple[tuple[Mapping[str, Any], Observation], ...] = ()

    @property
    def observations(self) -> list[Observation]:
        """What the earlier runs showed."""
        return [observation for _, observation in self.runs]


def learn(config: Config) -> Lessons:
    """Read every folder of ``warm_start``.

    The recommended settings of each are tried right after the baseline. Its trials and proof runs join the boundary
    and the speed model if workload, source, objective, schedule and full horizon are the same, and the values that
    are not searched are too; from any other task only the settings are taken.

    Raises:
        ConfigError: a folder is not that of another search, or its config cannot be read any more.
        OutputFolderError: the study of a folder is gone.
    """
    to_try: list[Mapping[str, Any]] = []
    runs: list[tuple[Mapping[str, Any], Observation]] = []
    known: set[Path] = {RunFolder(config.output).path.resolve()}
    for n, name in enumerate(dict.fromkeys(str(Path(name).resolve()) for name in config.warm_start)):
        folder = RunFolder(name)
        if not folder.exists() or folder.path in known:
            raise ConfigError(
                f"warm_start[{n}]: must be the output folder of an earlier search, but got {folder.path}. "
                "Name the folder that `stabletune search` wrote."
            )
        found = folder.recommendation()
        if found is not None and found.values() not in to_try:
            to_try.append(found.values())
        earlier = load_config(Path(name) / "config.yaml")
        source_then = folder.config().get("workload_sha256")
        if source_then == config.workload_sha256 and _is_same_task(earlier, config):
            runs += _runs_of(earlier, folder, config)
    return Lessons(tuple(to_try), tuple(runs))


def keep(lessons: Lessons, study: SearchStudy) -> None:
    """Store the lessons with the study, so that going on with it does not need the earlier folders."""
    for n, (settings, run) in enumerate(lessons.runs):
        study.set_attribute(f"{LESSON}{n:06d}", {"settings": dict(settings), "observation": run.as_data()})
    study.set_attribute(TO_TRY, [dict(values) for values in lessons.to_try])


def recall(study: SearchStudy, config: Config, lessons: Lessons | None = None) -> Lessons:
    """The lessons stored with a study, where none are yet those given, learned anew if a crash came before."""
    to_try = study.attribute(TO_TRY, None)
    if to_try is None:
        lessons = learn(config) if lessons is None else lessons
        keep(lessons, study)
        return lessons
    runs = [(entry["settings"], Observation(**entry["observation"])) for entry in study.attributes(LESSON)]
    return Lessons(tuple(to_try), tuple(runs))


def _is_same_task(earlier: Config, config: Config) -> bool:
    if any(getattr(earlier, key) != getattr(config, key) for key in SAME_TASK):
        return False
    if any(getattr(earlier.objective, key) != getattr(config.objective, key) for key in SAME_OBJECTIVE):
        return False
    if config.objective.source == "eval" and earlier.budget.trial_steps != config.budget.trial_steps:
        return False
    fixed = [
        {n: v for n, v in _everything(c).items() if n not in config.search_space.ranges} for c in (earlier, config)
    ]
    is_searched_there_only = set(earlier.search_space.ranges) - set(config.search_space.ranges)
    return earlier.budget.full_steps == config.budget.full_steps and fixed[0] == fixed[1] and not is_searched_there_only


def _everything(config: Config) -> dict[str, Any]:
    return {**config.settings(), **{WORKLOAD_ARGS + name: value for name, value in config.arguments().items()}}


def _runs_of(earlier: Config, folder: RunFolder, config: Config) -> list[tuple[Mapping[str, Any], Observation]]:
    study = read_study(earlier, folder.journal_path)
    if study is None:
        raise OutputFolderError(
            f"warm_start: {folder.path} must hold the study of its search, but it is gone from "
            f"{earlier.storage or folder.journal_path}. Restore it, or leave the folder out."
        )
    records = [trial.user_attrs[RECORD] for trial in study.get_trials(deepcopy=False) if RECORD in trial.user_attrs]
    settings = {record["row"]["trial"]: record["settings"] for record in records}
    whole = [Observation(**record["observation"]) for record in records if record["observation"]]
    kept = [study.user_attrs[name] for name in sorted(study.user_attrs) if name.startswith(PROOF_RUN)]
    proofs = proof_observations(stored_runs(kept))
    return [
        (settings[seen.number], dataclasses.replace(seen, place=place_of(settings[seen.number], config.search_space)))
        for seen in (*sampled(whole), *proofs[-REMEMBERED:])
    ]
