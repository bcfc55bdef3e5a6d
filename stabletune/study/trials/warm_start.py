"""What earlier searches teach a new one: their recommended settings, and their runs if the task is the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stabletune.config import Config, load_config
from stabletune.errors import OutputFolderError
from stabletune.hyperparameters import WORKLOAD_ARGS
from stabletune.results.store import RunFolder
from stabletune.study.optuna_study import SearchStudy
from stabletune.study.prediction.observation import Observation
from stabletune.study.prediction.outlook import remembered
from stabletune.study.prediction.place import place_of
from stabletune.study.proof.confirm import PROOF_RUN

SAME_TASK = ("workload", "workload_sha256", "schedule")


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
        OutputFolderError: the study of a folder cannot be read.
    """
    to_try: list[Mapping[str, Any]] = []
    runs: list[tuple[Mapping[str, Any], Observation]] = []
    for name in config.warm_start:
        folder = RunFolder(name)
        found = folder.recommendation()
        if found is not None:
            to_try.append(found.values())
        earlier = load_config(Path(name) / "config.yaml")
        if _is_same_task(earlier, config):
            runs += _runs_of(earlier, folder, config)
    return Lessons(tuple(to_try), tuple(runs))


def _is_same_task(earlier: Config, config: Config) -> bool:
    if any(getattr(earlier, key) != getattr(config, key) for key in SAME_TASK):
        return False
    fixed = [
        {n: v for n, v in _everything(c).items() if n not in config.search_space.ranges} for c in (earlier, config)
    ]
    is_searched_there_only = set(earlier.search_space.ranges) - set(config.search_space.ranges)
    return earlier.budget.full_steps == config.budget.full_steps and fixed[0] == fixed[1] and not is_searched_there_only


def _everything(config: Config) -> dict[str, Any]:
    return {**config.settings(), **{WORKLOAD_ARGS + name: value for name, value in config.arguments().items()}}


def _runs_of(earlier: Config, folder: RunFolder, config: Config) -> list[tuple[Mapping[str, Any], Observation]]:
    if earlier.storage is None and not folder.journal_path.exists():
        raise OutputFolderError(
            f"warm_start: {folder.path} must hold the study of its search, but study.journal is not there. "
            "Restore it, or leave the folder out."
        )
    study = SearchStudy(earlier, folder.journal_path, resume=True)
    settings = {record["row"]["trial"]: record["settings"] for record in study.records()}
    trials = [Observation(**seen) for record in study.records() for seen in record["observations"]]
    kept = [entry["run"] for entry in study.attributes(PROOF_RUN) if entry["run"]]
    proofs = [Observation(**run["observation"]) for run in kept if run["observation"]]
    return [
        (settings[seen.number], dataclasses.replace(seen, place=place_of(settings[seen.number], config.search_space)))
        for seen in (*remembered(trials), *proofs)
    ]
