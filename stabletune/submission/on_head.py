"""What a job does on the cluster before and after the search: take up a run that was sent, and hand the results out.

Results are handed out as a file among Ray's logs, which the dashboard serves: no other port, no shared disk.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stabletune.config import Config, load_config
from stabletune.errors import ConfigError
from stabletune.results.store import RunFolder
from stabletune.submission.archive import pack_run, sha256_of, unpack_run

JOBS = ".stabletune/jobs"
_JOB_ID = re.compile(r"stabletune-[A-Za-z0-9_-]+")


@dataclasses.dataclass(frozen=True)
class Parcel:
    """What a job hands out: a file among the logs of its node, or nothing where it has no results."""

    file: str | None = None
    size: int = 0
    sha256: str = ""


def config_name(job_id: str) -> str:
    """The config of a job in the folder that is sent."""
    return f"{job_id}.yaml"


def run_name(job_id: str) -> str:
    """The run that a job goes on with, in the folder that is sent."""
    return f"{job_id}.tar.gz"


def run_step(step: str, job_id: str) -> str:
    """Run ``take-up`` or ``hand-out``; returns what a job prints of it.

    Raises:
        ConfigError: there is no such step, or the id is none of ``stabletune submit``, as a path would be.
    """
    refuse_foreign_id(job_id, "job")
    if step == "take-up":
        return take_up(job_id)
    if step == "hand-out":
        return hand_out(job_id, _logs())
    raise ConfigError(f"job: must be take-up or hand-out, but got {step!r}. `stabletune submit` calls both.")


def refuse_foreign_id(job_id: str, where: str) -> None:
    """Raise ConfigError for an id that is none of ``stabletune submit``, as a path would be."""
    if not _JOB_ID.fullmatch(job_id):
        raise ConfigError(
            f"{where}: must have an id like stabletune-NAME-1a2b3c4d, but got {job_id!r}. See `ray job list`."
        )


def take_up(job_id: str) -> str:
    """Put the run that was sent with a job where its search writes, its config made the one of this place.

    A job that was here before its head was started anew has gone on with that run, and keeps what it has. Its budget
    stays what it was.

    Raises:
        ConfigError: what it has is of another config.
    """
    folder, archive = RunFolder(job_folder(job_id)), Path(run_name(job_id))
    config = load_config(config_name(job_id), output=folder.path)
    if folder.exists():
        refuse_difference(config, folder.config(), f"{folder.path / 'config.yaml'}")
    elif archive.exists():
        part = folder.path.with_name(f"{job_id}.part")
        for left_over in (part, folder.path):
            shutil.rmtree(left_over, ignore_errors=True)
        unpack_run(archive, part)
        os.replace(part, folder.path)
    else:
        return f"{job_id} left nothing here to go on with"
    folder.write_config({**config.resolved(), "budget": folder.config()["budget"]})
    return f"going on with the run of {job_id}"


def refuse_difference(config: Config, other: Mapping[str, Any], where: str) -> None:
    """Raise ConfigError where a search may not go on with another config; the workload's file may lie elsewhere."""
    differing = [key for key in config.difference(other) if key != "workload"]  # its hash is compared
    if differing:
        raise ConfigError(
            f"--resume: only budget may differ from {where}, but got other values for {', '.join(differing)}. "
            "Restore them, or start another search with --output."
        )


def hand_out(job_id: str, logs: Path) -> str:
    """Pack the run of a job that is over among Ray's ``logs``; returns a ``Parcel`` as JSON.

    The run itself stays: what Ray serves goes with its session, and may not have arrived by then.

    Raises:
        OutputFolderError: another call, or the search, is still at work in the folder.
    """
    folder, archive = RunFolder(job_folder(job_id)), logs / f"stabletune-run-{job_id}.tar.gz"
    parcel = Parcel()
    if folder.exists():
        with folder.claimed():
            pack_run(folder.path.iterdir(), archive)
            parcel = Parcel(archive.name, archive.stat().st_size, sha256_of(archive))
    return json.dumps(dataclasses.asdict(parcel))


def job_folder(job_id: str) -> Path:
    """Where a job's search writes on its node."""
    return Path.home() / JOBS / job_id


def _logs() -> Path:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import logging

    import ray
    import ray._private.worker as worker

    ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR)
    try:
        return Path(worker._global_node.get_logs_dir_path())  # type: ignore[attr-defined]
    finally:
        ray.shutdown()
