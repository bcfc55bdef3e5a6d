"""The head of a Ray cluster, reached through the one port of its dashboard: jobs, their logs, files of their nodes."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from stabletune.errors import ConfigError, JobError, ResourceError

SECONDS_WITHOUT_ANSWER = 60.0
SECONDS_BETWEEN_QUESTIONS = 0.5
SECONDS_OF_A_DOWNLOAD = 24 * 3600
BLOCK = 2**20
OVER = ("STOPPED", "SUCCEEDED", "FAILED")
TALKATIVE = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
ADDRESS = "RAY_API_SERVER_ADDRESS"
NODE_LABEL = "ray.io/node-id"


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
        if "@" in address:
            raise ConfigError(
                "--address: must be a URL without a user's name or password, but got one with @. Leave out what is "
                "before the @. A head that asks for a token is given RAY_AUTH_TOKEN's, where RAY_AUTH_MODE=token."
            )
        if urlsplit(address).scheme not in ("http", "https"):
            raise ResourceError(
                f"--address: must be the URL of a Ray head's dashboard, but got {address!r}. Example: http://HEAD:8265."
            )
        try:
            import aiohttp
            import requests
            from ray.exceptions import AuthenticationError
            from ray.job_submission import JobSubmissionClient
        except ModuleNotFoundError as error:
            raise ResourceError(
                f"submit: {error.name} must be installed, but is not. pip install 'stabletune[cluster]'"
            ) from error
        for name in TALKATIVE:
            logging.getLogger(name).setLevel(logging.ERROR)
        self.address = address.rstrip("/")
        self._requests = requests
        self._failures = (requests.RequestException, aiohttp.ClientError, ConnectionError, TimeoutError, RuntimeError)
        try:
            with _before_what_the_environment_names(self.address):
                self._client: Any = JobSubmissionClient(self.address)
        except AuthenticationError as error:
            raise ResourceError(
                f"--address: must be a Ray head's dashboard that lets you in, but {address!r} gave: "
                f"{_line(error).partition(' Token auth')[0]}. Set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN to the "
                "head's token where ~/.ray/auth_token does not hold it."
            ) from error
        except self._failures as error:
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
        """Start ``command`` as a job, in a copy of ``folder`` if given, on the node if given."""
        with self._refusals():
            self._client.submit_job(
                entrypoint=command,
                submission_id=job_id,
                runtime_env={} if folder is None else {"working_dir": str(folder)},
                metadata=dict(metadata or {}),
                entrypoint_label_selector=None if node_id is None else {NODE_LABEL: node_id},
            )

    def job(self, job_id: str) -> Job | None:
        """The job of that id; None where the cluster knows of none."""
        with self._refusals():
            return self._job(job_id)

    def follow(self, job_id: str, show: Callable[[str], None]) -> Job:
        """Pass on what a job writes until it is over; a head that does not answer is asked again for a minute."""
        shown = 0
        answered_at = time.monotonic()

        async def tail() -> None:
            nonlocal shown, answered_at
            passed = 0
            async for text in self._client.tail_job_logs(job_id):
                new = text[max(0, shown - passed) :]
                passed += len(text)
                answered_at = time.monotonic()
                if new:
                    shown += len(new)
                    show(new)

        while True:
            try:
                asyncio.run(tail())
                job = self._job(job_id)
                answered_at = time.monotonic()
            except self._failures as error:
                if time.monotonic() - answered_at > SECONDS_WITHOUT_ANSWER:
                    raise self._lost(error) from error
            else:
                if job is None:
                    raise JobError(f"job {job_id}: must be known to {self.address}, but is no more. It was deleted.")
                if job.is_over:
                    return job
            time.sleep(SECONDS_BETWEEN_QUESTIONS)

    def download(self, node_id: str, name: str, target: Path) -> None:
        """Write a file among the logs of a node to ``target``."""
        wanted: dict[str, str | int] = {
            "node_id": node_id,
            "filename": name,
            "lines": -1,
            "timeout": SECONDS_OF_A_DOWNLOAD,
        }
        with (
            self._refusals(),
            self._requests.get(
                f"{self.address}/api/v0/logs/file",
                params=wanted,
                headers=self._client._headers,
                verify=self._client._verify,
                stream=True,
            ) as answer,
            target.open("wb") as file,
        ):
            if not answer.ok:
                raise RuntimeError(answer.text)
            for block in answer.iter_content(BLOCK):
                file.write(block)

    def _job(self, job_id: str) -> Job | None:
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
            message=found.message or "",
        )

    @contextlib.contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except self._failures as error:
            raise self._lost(error) from error

    def _lost(self, error: Exception) -> JobError:
        return JobError(f"{self.address}: the head of the cluster must answer as asked, but gave: {_line(error)}")


@contextlib.contextmanager
def _before_what_the_environment_names(address: str) -> Iterator[None]:
    """Ray's client would take RAY_API_SERVER_ADDRESS or RAY_ADDRESS in place of its argument."""
    earlier = os.environ.get(ADDRESS)
    os.environ[ADDRESS] = address
    try:
        yield
    finally:
        if earlier is None:
            del os.environ[ADDRESS]
        else:
            os.environ[ADDRESS] = earlier


def _line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if text.endswith(".") else f"{text}."
