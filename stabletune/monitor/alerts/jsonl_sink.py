"""Alerts as lines of a JSON Lines file."""

from __future__ import annotations

import json
from pathlib import Path

from stabletune.records import Alert, as_data


class JsonlSink:
    """Appends each alert to a file, which is opened and closed each time: other processes may read or move it."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)

    def __call__(self, alert: Alert) -> None:
        """Append one line."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(as_data(alert), allow_nan=False) + "\n")
