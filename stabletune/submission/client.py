"""Ray's own client of a head's dashboard, but one that gives up; loaded with Ray, when a head is asked."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

SECONDS_OF_AN_ANSWER = 60.0
SECONDS_OF_AN_UPLOAD = 3600.0
SECONDS_OF_A_DOWNLOAD = 24 * 3600
BLOCK = 2**20
ADDRESS = "RAY_API_SERVER_ADDRESS"
FAILURES = (
    requests.RequestException,
    aiohttp.ClientError,
    asyncio.TimeoutError,
    ConnectionError,
    AuthenticationError,
    RuntimeError,
    *(KeyError, TypeError, ValueError),  # Ray's client reads the answers of any server as if they were a head's
)


class Client(JobSubmissionClient):
    """Asks the dashboard at ``address``, whatever the environment names; every call may raise one of ``FAILURES``."""

    def __init__(self, address: str) -> None:
        with _before_what_the_environment_names(address):
            super().__init__(address)

    def _do_request(self, method: str, *rest: Any, **options: Any) -> requests.Response:
        patience = SECONDS_OF_AN_UPLOAD if method == "PUT" else SECONDS_OF_AN_ANSWER
        return super()._do_request(method, *rest, timeout=patience, **options)

    def download(self, node_id: str, name: str, target: Path) -> None:
        """Write a file among the logs of a node to ``target``."""
        wanted: dict[str, str | int] = {
            "node_id": node_id,
            "filename": name,
            "lines": -1,
            "timeout": SECONDS_OF_A_DOWNLOAD,
        }
        with requests.get(  # Ray's own way reads it into memory
            f"{self._address}/api/v0/logs/file",
            params=wanted,
            headers=self._headers,
            verify=self._verify,
            stream=True,
            timeout=SECONDS_OF_AN_ANSWER,
        ) as answer:
            if not answer.ok:
                self._raise_error(answer)
            with target.open("wb") as file:
                for block in answer.iter_content(BLOCK):
                    file.write(block)


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
