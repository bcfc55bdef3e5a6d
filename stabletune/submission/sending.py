"""What a job is sent: the user's files, a config that holds where they arrive, and the run to go on with, if any."""

from __future__ import annotations

import os
from pathlib import Path

from stabletune.config import Config
from stabletune.errors import ConfigError, ResourceError
from stabletune.results.store import FILES, PRODUCTS, RunFolder
from stabletune.results.yaml_files import as_yaml
from stabletune.study.executors.packing import IGNORE_FILE, MIB, pack
from stabletune.submission import note
from stabletune.submission.archive import pack_run
from stabletune.submission.on_head import config_name, run_name

MOST_MIB_IN_ALL = 99.0  # Ray's dashboard takes requests of up to 100
OUTSIDE = "workload"


def refuse_what_stays_here(config: Config) -> None:
    """Raise ConfigError for a study in a file of this machine: the job would write another one on the cluster."""
    if config.storage is not None and config.storage.startswith("sqlite"):
        raise ConfigError(
            f"storage: must be null or a database that the cluster reaches too, but got {config.storage!r}. "
            "Leave it out: the study comes back with the other files."
        )


def prepare(config: Config, job_id: str, target: Path, run: RunFolder | None) -> None:
    """Write to ``target`` everything that the job needs there.

    The config's folder keeps its layout, so that relative paths in it hold. A workload's file outside of it is sent
    with its own folder. A built-in workload needs neither. The config file stays here: it may hold a password, which
    the resolved config that is sent in its place, for the job and for workloads that read it, does not.

    Args:
        config: checked, as of this machine.
        job_id: names the job's own files.
        target: an empty folder.
        run: the run to go on with.

    Raises:
        ResourceError: too much to send, or the workload's file is among what is left out.
    """
    is_built_in = config.workload.path is None and config.workload.module is None
    root = config.path.parent
    file, place = config.workload.file, None
    if file is not None and root.is_relative_to(file.parent):
        root = file.parent
    configs = [target / config_name(job_id)]
    if not is_built_in:
        pack(root, target, besides=[config.path, config.path.resolve(), *_written_to(config.output, root)])
        configs.append(target / config.path.relative_to(root))
    if file is not None:
        if file.is_relative_to(root):
            place = target / file.relative_to(root)
        else:
            place = target / f"{job_id}-{OUTSIDE}" / file.name
            pack(file.parent, place.parent, besides=[config.path.resolve()])
        if not place.is_file():
            raise ResourceError(
                f"workload: its file must be among what is sent, but {file} is left out by its name or by .rayignore. "
                "Move it, or take it off that list."
            )
    for path in configs:
        _write_config(config, path, place)
    if run is not None:
        parts = (run.path / name for name in (*FILES, *PRODUCTS))
        pack_run((part for part in parts if part.exists()), target / run_name(job_id))
    _refuse_too_much(target, job_id)


def _write_config(config: Config, path: Path, workload: Path | None) -> None:
    """The resolved config, as it reads on a cluster where it lies at ``path``."""
    data = {**config.resolved(), "output": f"runs/{config.name}"}
    data["resources"] = {**data["resources"], "address": "auto"}
    if workload is not None:
        data["workload"] = f"{os.path.relpath(workload, path.parent)}:{config.workload.function}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(as_yaml(data), encoding="utf-8")


def _written_to(output: str, root: Path) -> list[Path]:
    """The output folder, for a run is sent as one file; only what a search writes there if ``root`` lies in it."""
    folder = Path(output).expanduser().resolve()
    return [folder / name for name in (*FILES, *PRODUCTS, note.NAME)] if root.is_relative_to(folder) else [folder]


def _refuse_too_much(target: Path, job_id: str) -> None:
    sizes = {path: path.stat().st_size / MIB for path in target.rglob("*") if path.is_file()}
    total, of_run = sum(sizes.values()), sizes.get(target / run_name(job_id), 0.0)
    if total > MOST_MIB_IN_ALL:
        remedy = (
            "Go on with the run on a machine of the cluster: `stabletune search --resume`."
            if of_run
            else f"List what workers do not need in {IGNORE_FILE}, or load data from a place that every node can reach."
        )
        raise ResourceError(
            f"submit: at most {MOST_MIB_IN_ALL:.0f} MiB can be sent, but there are {total:.0f}, of which the run to go "
            f"on with has {of_run:.0f}. {remedy}"
        )


def with_lessons(config: Config, scratch: Path) -> RunFolder | None:
    """A run that has only begun and knows what the searches of ``warm_start`` teach; None where it names none.

    Their folders need not be sent: a study keeps its lessons.
    """
    if not config.warm_start:
        return None
    from stabletune.study.optuna_study import SearchStudy
    from stabletune.study.trials.warm_start import keep, learn

    lessons = learn(config)
    run = RunFolder(scratch)
    run.create(config.resolved())
    keep(lessons, SearchStudy(config, run.journal_path))
    return run
