"""Which runs are under way and how far they are, as a file that ``stabletune dashboard`` shows."""

from __future__ import annotations

import logging
import math
import time
from typing import Any

from stabletune.records import Progress, TrialSpec
from stabletune.results.store import RunFolder

SECONDS_BETWEEN_WRITES = 2.0
MOST_POINTS, MOST_POINTS_IN_ALL, FEWEST_POINTS = 400, 10_000, 20

Key = tuple[str, int, int]
Point = list[Any]  # step, loss, sharpness ratio, staleness
LOSS, RATIO = 1, 2
_log = logging.getLogger("stabletune")


class RunsUnderWay:
    """Follows each run from its start to its end; the file is replaced every two seconds at most.

    A run has 400 points of its curves at most, and all together about 10,000, but each at least 20, so that a file
    of many runs is no longer than one of 25. It is a view: where it cannot be written, that is logged once and the
    search goes on.

    Args:
        folder: of the search.
        seconds: the least time between two writes.
    """

    def __init__(self, folder: RunFolder, seconds: float = SECONDS_BETWEEN_WRITES) -> None:
        self._folder = folder
        self._seconds = seconds
        self._runs: dict[Key, dict[str, Any]] = {}
        self._written_at = -seconds
        self._has_failed = False

    def __len__(self) -> int:
        return len(self._runs)

    def start(self, spec: TrialSpec) -> None:
        """A run was handed out."""
        self._runs[spec.purpose, spec.number, spec.seed] = {
            "purpose": spec.purpose,
            "trial": spec.number,
            "seed": spec.seed,
            "lr": spec.params.get("lr"),
            "beta2": spec.params.get("beta2"),
            "step": 0,
            "steps": spec.steps,
            "points": [],
        }
        self._write()

    def report(self, progress: Progress) -> None:
        """A run reports; what it shows at a time is a point of its curves."""
        run = self._runs.get((progress.purpose, progress.number, progress.seed))
        if run is None:
            return
        run["step"] = progress.step
        run["points"].append([progress.step, progress.loss, progress.sharpness_ratio, progress.v_hat_staleness])
        if len(run["points"]) > max(FEWEST_POINTS, min(MOST_POINTS, MOST_POINTS_IN_ALL // len(self._runs))):
            run["points"] = _halved(run["points"])
        self._write()

    def end(self, spec: TrialSpec) -> None:
        """A run has ended, whatever came of it."""
        self._runs.pop((spec.purpose, spec.number, spec.seed), None)
        self._write()

    def _write(self) -> None:
        now = time.monotonic()
        if now - self._written_at >= self._seconds:
            self._written_at = now
            try:
                self._folder.write_running({"runs": list(self._runs.values())})
            except OSError as error:
                if not self._has_failed:
                    self._has_failed = True
                    _log.warning("stabletune: the dashboard does not see runs under way: %s", error)


def _halved(points: list[Point]) -> list[Point]:
    """The first and the last, and of each four between them those of the largest loss and S: no peak vanishes."""
    first, *between, last = points
    kept = [first]
    for start in range(0, len(between), 4):
        four = between[start : start + 4]
        tops = {max(range(len(four)), key=lambda at: _height(four[at][column])) for column in (LOSS, RATIO)}
        kept += [four[at] for at in sorted(tops)]
    return [*kept, last]


def _height(value: float | None) -> float:
    if value is None:
        return -math.inf
    return value if math.isfinite(value) else math.inf
