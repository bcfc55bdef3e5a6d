"""A JSON Lines file that others append to: each time only what is new is read."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


class GrowingFile:
    """The objects of its whole lines so far, each as ``keep`` leaves it; a file that was replaced is read anew.

    A line that is no JSON object, or that ``keep`` cannot use (KeyError, TypeError, ValueError), is left out.

    Args:
        path: of the file, which need not be there yet.
        keep: what of an object is kept in memory.
    """

    def __init__(self, path: Path, keep: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        self.path = path
        self._keep = keep
        self._lines: list[dict[str, Any]] = []
        self._read_to = 0
        self._inode = 0

    def lines(self) -> list[dict[str, Any]]:
        """Every line so far; none where there is no file."""
        if not self.path.is_file():
            self._lines, self._read_to = [], 0
            return []
        with self.path.open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_ino != self._inode or status.st_size < self._read_to:
                self._lines, self._read_to, self._inode = [], 0, status.st_ino
            file.seek(self._read_to)
            whole, _, _ = file.read().rpartition(b"\n")
        if whole:
            self._read_to += len(whole) + 1
            self._lines += [kept for line in whole.split(b"\n") if (kept := self._parsed(line)) is not None]
        return self._lines

    def _parsed(self, line: bytes) -> dict[str, Any] | None:
        try:
            found = json.loads(line)
            return self._keep(found) if isinstance(found, dict) else None
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
            return None
