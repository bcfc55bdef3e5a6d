"""``submit``: a search as a job of a Ray cluster, followed from here, its run folder fetched when it is over.

Flows in: a config file and a head's address; flows out: the run folder, as if the search had run here. The note in the
folder names the job before it starts, so that a submitter that is cut off finds it again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
import shlex
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from signal import SIGKILL
from typing import Any

import yaml

from stabletune.config import Config, load_config
from stabletune.errors import JobError, OutputFolderError, ResourceError, without_password
from stabletune.results.store import RunFolder
from stabletune.study.proof.outcome import StudyResult
from stabletune.submission.fetching import fetch, result_of
from stabletune.submission.head import Head, Job
from stabletune.submission.note import Note, forget_note, read_note
from stabletune.submission.on_head import JOBS, config_name, refuse_difference, refuse_foreign_id
from stabletune.submission.sending import prepare, refuse_what_stays_here, with_lessons

CONFIG = "stabletune_config"
OF_A_SEARCH = (0, 3)  # exit codes of `stabletune search` that come with a result
MISTAKE, FAILED, INTERRUPTED, NO_SUCH_COMMAND = 2, 1, 130, 127
KILLED = 128 + SIGKILL  # as a shell says it
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
    if job_id is not None:
        refuse_foreign_id(job_id, "--job")
    folder = RunFolder(checked.output)
    with _held(folder):
        note = read_note(folder.path)
        if not resume or job_id is not None:
            _refuse_if_taken(folder, note, job_id)
        head = Head(address)
        if job_id is not None:
            note = Note(job_id, head.address, goes_on=note is not None and note.goes_on)
        job = None if note is None else head.job(note.job_id)
        submission = _Submission(head, checked, folder, overrides=overrides, show=show)
        if note is not None and job is not None:
            submission.refuse_another_config(job)
            note.write(folder.path)
            return submission.see_through(note)
        if job_id is not None:
            raise ResourceError(f"--job: must be a job of {address}, but got {job_id!r}. See `ray job list`.")
        if note is not None and note.address != head.address:
            raise ResourceError(
                f"--address: must be where job {note.job_id} was submitted, {note.address}, but got {address}. "
                "Give that one, or name another folder with --output."
            )
        return submission.start(None if note is None else note.job_id, resume=resume)


@contextlib.contextmanager
def _held(folder: RunFolder) -> Iterator[None]:
    """The folder, made if need be, without another process in it; gone again where nothing is left in it."""
    folder.make()
    with folder.claimed():
        try:
            yield
        finally:
            if not any(folder.path.iterdir()):
                folder.path.rmdir()


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

    def start(self, job_id: str | None, *, resume: bool) -> Ended:
        """Send everything, start the job and see it through.

        A ``job_id`` that the head does not know is started under its name: if the head was started anew it goes on with
        what it left there, and if its first start is still under way Ray refuses one of the two.
        """
        folder, config = self._folder, self._config
        goes_on = folder.exists()
        if goes_on:
            refuse_difference(config, folder.config(), f"{folder.path / 'config.yaml'}")
        if job_id is not None:
            self._show(
                f"--resume: {self._head.address} knows of no job {job_id}; it is sent again, and goes on with what it "
                "left there, if anything.\n"
            )
        elif resume and not goes_on:
            self._show(f"--resume: there is no search in {folder.path} to go on with; a new one begins.\n")
        note = Note(job_id or f"stabletune-{config.name}-{secrets.token_hex(4)}", self._head.address, goes_on)
        may_run = f"job {note.job_id} may have started all the same. {self._how_to_come_back(note.job_id)}"
        with tempfile.TemporaryDirectory(prefix="stabletune-submit-") as scratch:
            sent = Path(scratch) / "sent"
            sent.mkdir()
            run = folder if goes_on else with_lessons(config, Path(scratch) / "run")
            prepare(config, note.job_id, sent, run)
            note.write(folder.path)
            command = _command(note.job_id, takes_up=run is not None or job_id is not None, resume=resume)
            metadata = {CONFIG: yaml.safe_dump(config.resolved())}
            try:
                self._head.start(note.job_id, command, folder=sent, metadata=metadata)
            except KeyboardInterrupt:
                return Ended(INTERRUPTED, message=may_run)
            except JobError as error:
                raise JobError(f"{error}\n{may_run}") from error
        return self.see_through(note)

    def see_through(self, note: Note) -> Ended:
        """Follow the job, fetch what it wrote, and say how it ended."""
        written = ""

        def hear(text: str) -> None:
            nonlocal written
            written = "".join((written + text).splitlines(keepends=True)[-LINES_KEPT:])
            self._show(text)

        back = self._how_to_come_back(note.job_id)
        try:
            self._show(f"job {note.job_id} at {self._head.address}; Ctrl-C leaves it running.\n")
            job = self._head.follow(note.job_id, hear)
        except KeyboardInterrupt:
            return Ended(INTERRUPTED, message=f"job {note.job_id} goes on. {back}")
        except JobError as error:
            return Ended(FAILED, message=f"{error}\njob {note.job_id} may go on. {back}")
        if job is None:
            message = (
                f"job {note.job_id}: must be known to {self._head.address}, but is no more: the head was started anew, "
                f"or the job deleted. To send it again, so that it goes on with what it left there: `{self._command}`."
            )
            return Ended(FAILED, message=message)
        return dataclasses.replace(self._fetch(job, note), last_lines=written)

    def _fetch(self, job: Job, note: Note) -> Ended:
        code = _exit_code(job)
        waits = f"job {note.job_id} is over, but what it has done is not here yet. To fetch it: `{self._command}`."
        is_fetched = False
        try:
            if job.exit_code != NO_SUCH_COMMAND:  # without `stabletune` nothing was done, and nothing is handed out
                sent = self._sent_config(job)
                is_fetched = fetch(self._head, job, self._folder, self._config, budget=sent["budget"], note=note)
        except KeyboardInterrupt:
            return Ended(INTERRUPTED, message=waits)
        except JobError as error:
            return Ended(FAILED, message=f"{error}\n{waits}")
        forget_note(self._folder.path)
        if code not in OF_A_SEARCH:
            return Ended(code, message=_what_happened(job, code, self._folder.path if is_fetched else None))
        if not is_fetched:
            return Ended(
                FAILED, message=f"job {note.job_id}: must have left its results at the head, but they are gone."
            )
        return Ended(code, result=result_of(self._folder))

    def refuse_another_config(self, job: Job) -> None:
        """Raise ConfigError where the job searches with something else than this config."""
        refuse_difference(self._config, self._sent_config(job), f"that of job {job.job_id}")

    def _sent_config(self, job: Job) -> Mapping[str, Any]:
        written = job.metadata.get(CONFIG)
        if written is None:
            raise ResourceError(
                f"--job: must be a job of `stabletune submit`, but {job.job_id} is another. See `ray job list`."
            )
        sent: Mapping[str, Any] = yaml.safe_load(written)
        return sent

    def _how_to_come_back(self, job_id: str) -> str:
        stop = shlex.join([job_id, "--address", self._head.address])
        return f"To follow it and fetch its results: `{self._command}`. To stop it: `ray job stop {stop}`."

    @property
    def _command(self) -> str:
        settings = [word for override in self._overrides for word in ("--set", without_password(override))]
        places = ["--address", self._head.address, "--output", str(self._folder.path)]
        return f"stabletune {shlex.join(['submit', str(self._config.path), *places, *settings, '--resume'])}"


def _refuse_if_taken(folder: RunFolder, note: Note | None, job_id: str | None) -> None:
    """As ``search`` refuses a folder that holds another one; a folder that waits for a job is taken too."""
    if note is not None and note.job_id != job_id:
        raise OutputFolderError(
            f"output: the folder must not wait for results yet, but {folder.path} does, of job {note.job_id}. "
            "Add --resume to follow it and fetch them, or name another folder with --output."
        )
    if note is None or not note.goes_on:
        folder.refuse_if_taken()


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
    elif job.exit_code in (KILLED, -SIGKILL):
        how = "was killed from outside, as a machine does that runs out of memory"
    else:
        how = f"ended with exit code {job.exit_code}"
    kept = f" What it has done is in {fetched}; go on with --resume." if fetched is not None else ""
    return f"job {job.job_id} {how}.{kept}"
