"""The head of a Ray cluster, reached through the one port of its dashboard: jobs, their logs, files of their nodes."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import re
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from stabletune.errors import ConfigError, JobError, ResourceError

SECONDS_WITHOUT_ANSWER = 60.0
SECONDS_BETWEEN_QUESTIONS = 0.5
SECONDS_OF_SILENCE = 300.0  # then the log is asked for anew: a connection that was cut quietly tells nobody
SECONDS_AFTER_SILENCE = 5.0  # a log that cannot be read on is sent from its first line each time
TRIES_AT_A_LOG = 3  # before it is told that it cannot be followed
OVER = ("STOPPED", "SUCCEEDED", "FAILED")
TALKATIVE = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
NODE_LABEL = "ray.io/node-id"
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@dataclasses.dataclass(frozen=True)
class Job:
    """What Ray knows of a job. ``exit_code`` is its command's, None where it was stopped or never began."""

    job_id: str
    status: str
    exit_code: int | None
    node_id: str | None
    metadata: Mapping[str, str]
    message: str

    @property
    def is_over(self) -> bool:
        """Whether nothing of it runs any more."""
        return self.status in OVER


class Head:
    """Asks the dashboard at ``address``.

    Raises:
        ConfigError: the address holds a user's name or password, which messages and notes would repeat.
        ResourceError: the extra ``cluster`` is not installed, or there is no dashboard at the address.
    """

    def __init__(self, address: str) -> None:
        self.address = _checked(address).rstrip("/")
        try:
            from ray.exceptions import AuthenticationError

            from stabletune.submission.client import FAILURES, Client
        except ModuleNotFoundError as error:
            raise ResourceError(
                f"submit: {error.name} must be installed, but is not. pip install 'stabletune[cluster]'"
            ) from error
        for name in TALKATIVE:
            logging.getLogger(name).setLevel(logging.ERROR)
        self._failures = FAILURES
        try:
            self._client = Client(self.address)
        except AuthenticationError as error:
            raise ResourceError(
                f"--address: must be a Ray head's dashboard that lets you in, but {address!r} gave: "
                f"{_line(error).partition(' Token auth')[0]}. Set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN to the "
                "head's token where ~/.ray/auth_token does not hold it."
            ) from error
        except FAILURES as error:
            raise ResourceError(
                f"--address: must be a Ray head's dashboard that answers, but {address!r} gave: {_line(error)} "
                "Start one (`ray start --head --dashboard-host=0.0.0.0`), with ray[default] installed there."
            ) from error

    def start(
        self,
        job_id: str,
        command: str,
        *,
        folder: Path | None = None,
        metadata: Mapping[str, str] | None = None,
        node_id: str | None = None,
    ) -> None:
        """Start ``command`` as a job, in a copy of ``folder`` if given, on the node if given.

        It is asked for again where the answer is lost: Ray takes an id once, so that no job starts twice.
        """

        def ask() -> None:
            with self._refusals():
                self._client.submit_job(
                    entrypoint=command,
                    submission_id=job_id,
                    runtime_env={} if folder is None else {"working_dir": str(folder)},
                    metadata=dict(metadata or {}),
                    entrypoint_label_selector=None if node_id is None else {NODE_LABEL: node_id},
                )

        for is_last in (False, True):
            try:
                return ask()
            except JobError:
                if self.job(job_id) is not None:
                    return
                if is_last:
                    raise

    def job(self, job_id: str) -> Job | None:
        """The job of that id; None where the cluster knows of none."""
        with self._refusals():
            try:
                found = self._client.get_job_info(job_id)
            except RuntimeError as error:
                if "status code 404" in str(error):
                    return None
                raise
            return Job(
                job_id=job_id,
                status=str(found.status.value),
                exit_code=found.driver_exit_code,
                node_id=found.driver_node_id,
                metadata=found.metadata or {},
                message=_printable(found.message or ""),
            )

    def log(self, job_id: str) -> str:
        """All that a job has written."""
        with self._refusals():
            return str(self._client.get_job_logs(job_id))

    def follow(self, job_id: str, show: Callable[[str], None]) -> Job | None:
        """Pass on what a job writes until it is over; a head that does not answer is asked again for a minute.

        Behind a proxy that passes no web sockets the log is read once the job is over.

        Returns:
            The job; None where the head knows of it no more.
        """
        log = _Log(show)
        n_failed, silent_since = 0, None
        while True:
            n_before = log.n_shown
            try:
                asyncio.run(self._read(job_id, log))
                n_failed = 0
            except JobError:
                n_failed = 1 if log.n_shown > n_before else n_failed + 1
            try:
                job = self.job(job_id)
                silent_since = None
            except JobError:
                silent_since = silent_since or time.monotonic()
                if time.monotonic() - silent_since > SECONDS_WITHOUT_ANSWER:
                    raise
            else:
                if job is not None and job.is_over and n_failed:
                    self._show_rest(job_id, log)
                if job is None or job.is_over:
                    return job
                if n_failed == TRIES_AT_A_LOG:
                    log.show(f"job {job_id}: its log cannot be read while it runs; it is followed all the same.\n")
            time.sleep(SECONDS_BETWEEN_QUESTIONS if log.n_shown > n_before else SECONDS_AFTER_SILENCE)

    def _show_rest(self, job_id: str, log: _Log) -> None:
        try:
            text = self.log(job_id)
        except JobError as error:
            log.show(f"job {job_id}: its log cannot be read: {error}\n")
        else:
            log.begin()
            log.hear(text)

    async def _read(self, job_id: str, log: _Log) -> None:
        """Read a log to its end, or until it has been silent for so long that its connection may be none any more."""
        log.begin()
        async with contextlib.aclosing(self._texts(job_id)) as texts:
            async for text in texts:
                log.hear(text)

    async def _texts(self, job_id: str) -> AsyncGenerator[str, None]:
        with self._refusals():
            pieces: Any = self._client.tail_job_logs(job_id)
            async with contextlib.aclosing(pieces) as texts:
                with contextlib.suppress(asyncio.TimeoutError):
                    while (text := await asyncio.wait_for(anext(texts, None), SECONDS_OF_SILENCE)) is not None:
                        yield text

    def download(self, node_id: str, name: str, target: Path) -> None:
        """Write a file among the logs of a node to ``target``."""
        with self._refusals():
            self._client.download(node_id, name, target)

    @contextlib.contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except self._failures as error:
            raise JobError(
                f"{self.address}: the head of the cluster must answer as asked, but gave: {_line(error)}"
            ) from error


class _Log:
    """Shows a log once, though each connection reads it from its first line."""

    def __init__(self, show: Callable[[str], None]) -> None:
        self.n_shown = 0
        self._n_heard = 0
        self.show = show

    def begin(self) -> None:
        """A new connection reads from the first line."""
        self._n_heard = 0

    def hear(self, text: str) -> None:
        """Show what of ``text`` is new, without what would command a terminal."""
        new = text[max(0, self.n_shown - self._n_heard) :]
        self._n_heard += len(text)
        self.n_shown = max(self.n_shown, self._n_heard)
        if new:
            self.show(_printable(new))


def _checked(address: str) -> str:
    if "@" in address:
        raise ConfigError(
            "--address: must be a URL without a user's name or password, but got one with @. Leave out what is "
            "before the @. A head that asks for a token is given RAY_AUTH_TOKEN's, where RAY_AUTH_MODE=token."
        )
    try:
        parts = urlsplit(address)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and not (parts.query or parts.fragment)
    except ValueError:
        is_url = False
    if not is_url:
        raise ResourceError(
            f"--address: must be the URL of a Ray head's dashboard, but got {address!r}. Example: http://HEAD:8265."
        )
    return address


def _printable(text: str) -> str:
    """Control characters as text, but for ends of lines and tabs: what a cluster writes may not command a terminal."""
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


def _line(error: Exception) -> str:
    text = _printable(" ".join(str(error).split())) or type(error).__name__
    return text if text.endswith(".") else f"{text}."
