"""``submit``: a search as a job of a Ray cluster, followed from here, its run folder fetched when it is over.

Flows in: a config file and a head's address; flows out: the run folder, as if the search had run here. The note in the
folder names the job before it starts, so that a submitter that is cut off finds it again.
"""

from __future__ import annotations

import dataclasses
import secrets
import shlex
import tempfile
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from stabletune.config import Config, load_config
from stabletune.errors import ConfigError, JobError, OutputFolderError, ResourceError, without_password
from stabletune.results.store import RunFolder
from stabletune.study.proof.outcome import StudyResult
from stabletune.submission.fetching import fetch, result_of
from stabletune.submission.head import Head, Job
from stabletune.submission.note import Note, forget_note, read_note
from stabletune.submission.on_head import JOBS, config_name
from stabletune.submission.sending import prepare, refuse_what_stays_here, with_lessons

CONFIG = "stabletune_config"
OF_A_SEARCH = (0, 3)  # exit codes of `stabletune search` that come with a result
MISTAKE, FAILED, INTERRUPTED, NO_SUCH_COMMAND = 2, 1, 130, 127
LINES_KEPT = 20


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a submission ended: the exit code of its search, and the result, or else what to say instead."""

    exit_code: int
    result: StudyResult | None = None
    message: str = ""
    last_lines: str = ""


def submit(
    config: str | Path,
    *,
    address: str,
    output: str | Path | None = None,
    resume: bool = False,
    job_id: str | None = None,
    overrides: Sequence[str] = (),
    show: Callable[[str], None],
) -> Ended:
    """Run a search as a job, or come back to one.

    Args:
        config: path of a config file.
        address: URL of a head's dashboard.
        output: the run folder on this machine; the config's own unless given.
        resume: go on with what is in that folder: with its job, or else with its search in a new job.
        job_id: come back to this job, from a folder that does not know it.
        overrides: ``key=value`` settings that replace the config's.
        show: is passed what the job writes, and notes; whole or partial lines.

    Returns:
        How it ended. Ctrl-C ends the following, not the job.

    Raises:
        ConfigError, OutputFolderError, ResourceError: what was asked for cannot be started.
        JobError: the head does not do what it is asked.
    """
    checked = load_config(config, overrides=overrides, output=output)
    refuse_what_stays_here(checked)
    folder = RunFolder(checked.output)
    note = read_note(folder.path)
    if not resume or job_id is not None:
        _refuse_if_taken(folder, note, checked, job_id)
    head = Head(address)
    submission = _Submission(head, checked, folder, overrides=overrides, show=show)
    if job_id is not None:
        note = Note(job_id, head.address, goes_on=note is not None and note.goes_on)
        if head.job(job_id) is None:
            raise ResourceError(f"--job: must be a job of {address}, but got {job_id!r}. See `ray job list`.")
    elif note is not None and head.job(note.job_id) is None:
        if note.address != head.address:
            raise ResourceError(
                f"--address: must be where job {note.job_id} was submitted, {note.address}, but got {address}. "
                "Give that one, or name another folder with --output."
            )
        show(f"--resume: job {note.job_id} is gone from {address}, with its results; a new one begins.\n")
        note = None
    if note is not None:
        submission.refuse_another_config(note.job_id)
    folder.path.mkdir(parents=True, exist_ok=True)
    with folder.claimed():
        if note is None:
            note = submission.start(resume=resume)
        else:
            note.write(folder.path)
        return submission.see_through(note)


class _Submission:
    """One config on its way to one head."""

    def __init__(
        self,
        head: Head,
        config: Config,
        folder: RunFolder,
        *,
        overrides: Sequence[str],
        show: Callable[[str], None],
    ) -> None:
        self._head, self._config, self._folder = head, config, folder
        self._overrides, self._show = overrides, show

    def start(self, *, resume: bool) -> Note:
        """Send everything and start the job."""
        folder, config = self._folder, self._config
        goes_on = folder.exists()
        if goes_on:
            _refuse_difference(config, folder.config(), f"{folder.path / 'config.yaml'}")
        elif resume:
            self._show(f"--resume: there is no search in {folder.path} to go on with; a new one begins.\n")
        job_id = f"stabletune-{config.name}-{secrets.token_hex(4)}"
        note = Note(job_id, self._head.address, goes_on)
        with tempfile.TemporaryDirectory(prefix="stabletune-submit-") as scratch:
            sent = Path(scratch) / "sent"
            sent.mkdir()
            try:
                run = folder if goes_on else with_lessons(config, Path(scratch) / "run")
                prepare(config, job_id, sent, run)
                note.write(folder.path)
                command = _command(job_id, takes_up=run is not None, resume=resume)
                metadata = {CONFIG: yaml.safe_dump(config.resolved())}
                self._head.start(job_id, command, folder=sent, metadata=metadata)
            except JobError as error:
                if self._has_none(job_id):
                    forget_note(folder.path)
                    raise
                back = self._how_to_come_back(job_id)
                raise JobError(f"{error}\njob {job_id} may have started all the same. {back}") from error
            except Exception:  # but not after Ctrl-C: the head may have started it
                forget_note(folder.path)
                raise
        return note

    def _has_none(self, job_id: str) -> bool:
        """Whether the head answers that it knows of no such job; False where it does not answer."""
        try:
            return self._head.job(job_id) is None
        except JobError:
            return False

    def see_through(self, note: Note) -> Ended:
        """Follow the job, fetch what it wrote, and say how it ended."""
        written: deque[str] = deque(maxlen=LINES_KEPT)

        def hear(text: str) -> None:
            written.extend(text.splitlines())
            self._show(text)

        try:
            self._show(f"job {note.job_id} at {self._head.address}; Ctrl-C leaves it running.\n")
            job = self._head.follow(note.job_id, hear)
            code = _exit_code(job)
            is_fetched = False
            if job.exit_code != NO_SUCH_COMMAND:  # without `stabletune` nothing was done, and nothing is handed out
                sent = self._sent_config(job)
                is_fetched = fetch(self._head, job, self._folder, self._config, budget=sent["budget"], note=note)
        except KeyboardInterrupt:
            return Ended(INTERRUPTED, message=f"job {note.job_id} goes on. {self._how_to_come_back(note.job_id)}")
        except JobError as error:
            message = f"{error}\njob {note.job_id} may go on. {self._how_to_come_back(note.job_id)}"
            return Ended(FAILED, message=message)
        forget_note(self._folder.path)
        if code in OF_A_SEARCH and is_fetched:
            return Ended(code, result=result_of(self._folder))
        message = _what_happened(job, code, self._folder.path if is_fetched else None)
        return Ended(code, message=message, last_lines="\n".join(written))

    def refuse_another_config(self, job_id: str) -> None:
        """Raise ConfigError where the job searches with something else than this config."""
        job = self._head.job(job_id)
        assert job is not None
        _refuse_difference(self._config, self._sent_config(job), f"that of job {job_id}")

    def _sent_config(self, job: Job) -> Mapping[str, Any]:
        written = job.metadata.get(CONFIG)
        if written is None:
            raise ResourceError(
                f"--job: must be a job of `stabletune submit`, but {job.job_id} is another. See `ray job list`."
            )
        sent: Mapping[str, Any] = yaml.safe_load(written)
        return sent

    def _how_to_come_back(self, job_id: str) -> str:
        at = ["--address", self._head.address]
        settings = [word for override in self._overrides for word in ("--set", without_password(override))]
        back = ["submit", str(self._config.path), *at, "--output", str(self._folder.path), *settings, "--resume"]
        return (
            f"To follow it again and fetch its results: `stabletune {shlex.join(back)}`. "
            f"To stop it: `ray job stop {shlex.join([job_id, *at])}`."
        )


def _refuse_if_taken(folder: RunFolder, note: Note | None, config: Config, job_id: str | None) -> None:
    """As ``search`` refuses a folder that holds another one; a folder that waits for a job is taken too."""
    if note is not None and note.job_id != job_id:
        raise OutputFolderError(
            f"output: the folder must not wait for results yet, but {folder.path} does, of job {note.job_id}. "
            "Add --resume to follow it and fetch them, or name another folder with --output."
        )
    if note is None or not note.goes_on:
        folder.create(config.resolved())
        folder.discard()


def _refuse_difference(config: Config, other: Mapping[str, Any], where: str) -> None:
    differing = [key for key in config.difference(other) if key != "workload"]  # its hash is compared
    if differing:
        raise ConfigError(
            f"--resume: only budget may differ from {where}, but got other values for {', '.join(differing)}. "
            "Restore them, or start another search with --output."
        )


def _command(job_id: str, *, takes_up: bool, resume: bool) -> str:
    """The search, for the shell of the job; its result is printed here, from the files that come back.

    ``--resume`` is passed on without a run too: a study in a database is joined with it.
    """
    first = f"stabletune job take-up {job_id} && " if takes_up else ""
    search = f'stabletune search {config_name(job_id)} --output "$HOME/{JOBS}/{job_id}"'
    return f"{first}{search}{' --resume' if takes_up or resume else ''} > /dev/null"


def _exit_code(job: Job) -> int:
    if job.status == "SUCCEEDED":
        return 0
    if job.status == "STOPPED":
        return INTERRUPTED
    if job.exit_code == NO_SUCH_COMMAND:
        return MISTAKE
    return job.exit_code if job.exit_code in (FAILED, MISTAKE, *OF_A_SEARCH, INTERRUPTED) else FAILED


def _what_happened(job: Job, code: int, fetched: Path | None) -> str:
    if job.exit_code == NO_SUCH_COMMAND:
        return (
            "submit: `stabletune` must be on the PATH of the cluster's head, but is not. "
            "Start Ray there with its environment activated."
        )
    if code == INTERRUPTED:
        how = "was stopped"
    elif job.exit_code is None:
        how = f"failed: {job.message}"
    else:
        how = f"ended with exit code {job.exit_code}"
    kept = f" What it has done is in {fetched}; go on with --resume." if fetched is not None else ""
    return f"job {job.job_id} {how}.{kept}"
