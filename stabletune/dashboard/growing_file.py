"""A JSON Lines file that others append to: each time only what is new is read, and a digest of it all is kept."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar


class Digest(Protocol):
    """What is kept of the lines of a file."""

    def add(self, line: dict[str, Any]) -> None:
        """Take in one line; KeyError, TypeError and ValueError say that it is of another kind."""


D = TypeVar("D", bound=Digest)


class GrowingFile(Generic[D]):
    """The digest of a file's whole lines so far; a file that was replaced is read anew, into another digest.

    A line that is no JSON object, or that the digest cannot use, is left out.

    Args:
        path: of the file, which need not be there yet.
        empty: a digest of no lines.
    """

    def __init__(self, path: Path, empty: Callable[[], D]) -> None:
        self.path = path
        self._empty = empty
        self._digest = empty()
        self._read_to = 0
        self._inode = 0

    def read(self) -> D:
        """The digest of every line so far; an empty one where there is no file."""
        if not self.path.is_file():
            self._digest, self._read_to = self._empty(), 0
            return self._digest
        with self.path.open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_ino != self._inode or status.st_size < self._read_to:
                self._digest, self._read_to, self._inode = self._empty(), 0, status.st_ino
            file.seek(self._read_to)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._read_to += len(line)
                self._take_in(line)
        return self._digest

    def _take_in(self, line: bytes) -> None:
        try:
            found = json.loads(line)
            if isinstance(found, dict):
                self._digest.add(found)
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
            return
