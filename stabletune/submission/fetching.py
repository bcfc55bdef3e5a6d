"""The results of a job on their way back: out of the cluster's logs, checked, and into the output folder."""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stabletune.config import Config
from stabletune.errors import JobError, OutputFolderError
from stabletune.results.report import write_report
from stabletune.results.store import RunFolder
from stabletune.study.proof.outcome import StudyResult
from stabletune.submission.archive import sha256_of, unpack_run
from stabletune.submission.head import Head, Job
from stabletune.submission.note import Note
from stabletune.submission.on_head import Parcel

SCRATCH = ".fetched"  # in the folder itself, which may be a disk of its own


def fetch(head: Head, job: Job, folder: RunFolder, config: Config, *, budget: Mapping[str, Any], note: Note) -> bool:
    """Put what a job that is over has written into ``folder``, its config made the one of this machine.

    Args:
        head: where the job was.
        job: which one.
        folder: replaced only where the note says that it may be.
        config: of this machine.
        budget: with which the job searched.
        note: of that job.

    Returns:
        Whether it had written anything.

    Raises:
        OutputFolderError: another search began in the folder meanwhile.
        JobError: the files did not arrive whole.
    """
    _refuse_if_taken(folder, note)
    scratch = folder.path / SCRATCH
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        archive = scratch / "run.tar.gz"
        if not _download(head, job, archive):
            return False
        move_in(archive, folder, {**config.resolved(), "budget": dict(budget)}, note)
    finally:
        shutil.rmtree(scratch)
    return True


def move_in(archive: Path, folder: RunFolder, config: Mapping[str, Any], note: Note) -> None:
    """Replace what ``folder`` holds by the run in ``archive``, with this config.

    The note says so first, and config.yaml, without which a folder holds no search, comes last but for the report: a
    move that is interrupted leaves a folder from which ``--resume`` fetches again.
    """
    _refuse_if_taken(folder, note)
    run = archive.with_name("run")
    unpack_run(archive, run)
    (run / "config.yaml").unlink()
    dataclasses.replace(note, goes_on=True).write(folder.path)
    folder.discard()
    for path in sorted(run.iterdir()):
        os.replace(path, folder.path / path.name)
    folder.write_config(config)
    if folder.report_path.exists():
        write_report(folder)  # it names files of this machine


def result_of(folder: RunFolder) -> StudyResult:
    """How the search in a folder ended, as its files tell."""
    analysis = folder.analysis()
    ending = analysis["ending"]
    recommendation = folder.recommendation() if ending == "recommended" else None
    return StudyResult(ending, analysis["outcome"], folder.path, len(folder.trials.rows()), recommendation)


def _refuse_if_taken(folder: RunFolder, note: Note) -> None:
    if folder.exists() and not note.goes_on:
        raise OutputFolderError(
            f"output: the folder must not hold another search, but one began in {folder.path} since job {note.job_id} "
            f"was submitted. Fetch the job's into another folder: --output DIR --job {note.job_id}."
        )


def _download(head: Head, job: Job, archive: Path) -> bool:
    """A second, short job on the node of the first hands its files out, however the first ended."""
    if job.node_id is None:
        return False
    parcel = _hand_out(head, job)
    if parcel.file is None:
        return False
    head.download(job.node_id, parcel.file, archive)
    if archive.stat().st_size != parcel.size or sha256_of(archive) != parcel.sha256:
        raise JobError(
            f"job {job.job_id}: its results must arrive whole, but {archive.stat().st_size} of {parcel.size} bytes "
            "did, or others."
        )
    return True


def _hand_out(head: Head, job: Job) -> Parcel:
    delivery_id = f"{job.job_id}-results-{secrets.token_hex(4)}"
    head.start(delivery_id, f"stabletune job hand-out {shlex.quote(job.job_id)}", node_id=job.node_id)
    ended = head.follow(delivery_id, lambda _: None)
    text = head.log(delivery_id) if ended is not None else ""
    lines = [line for line in text.splitlines() if line.startswith("{")]
    if ended is None or ended.status != "SUCCEEDED" or not lines:
        raise JobError(
            f"job {job.job_id}: its results must be handed out by a second job, but that one gave:\n{text.rstrip()}"
        )
    return Parcel(**json.loads(lines[-1]))
