"""Alerts as lines of Python's logging, under the name ``stabletune``."""

from __future__ import annotations

import logging

from stabletune.records import Alert

LEVELS = {
    "calm": logging.INFO,
    "approaching": logging.INFO,
    "unstable": logging.WARNING,
    "spiked": logging.ERROR,
}


class LogSink:
    """Logs each alert: calm and approaching as info, unstable as warning, spiked as error."""

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._logger = logger or logging.getLogger("stabletune")

    def __call__(self, alert: Alert) -> None:
        """Log it."""
        self._logger.log(LEVELS[alert.level], "%s: %s", alert.level, alert.message)
