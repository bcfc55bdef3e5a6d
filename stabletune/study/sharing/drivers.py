"""The drivers of one study: each raises a counter every five seconds, and counts as dead once it stands for thirty.

Only the clock of the one who looks is read, so that clocks need not agree; a time in which nobody could look, because
the database was away, says nothing about the others.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import optuna

from stabletune.study.sharing.access import DATABASE_ERRORS

SECONDS_BETWEEN_BEATS = 5.0
SECONDS_OF_GRACE = 30.0
DRIVER, BEATS = "driver:", "beats_of_driver:"


class Drivers:
    """This driver among those of its study.

    Args:
        study: that they share.
        own: the name of this one, which it keeps when it goes on after a crash.
    """

    def __init__(self, study: optuna.Study, own: str) -> None:
        self.own = own
        self._study = study
        self._entry: dict[str, Any] = {}
        self._n_beats = 0
        self._seen: dict[str, tuple[int, float]] = {}
        self._looked_at = -SECONDS_OF_GRACE
        self._has_left = threading.Event()
        self._thread = threading.Thread(target=self._beat_until_left, name="stabletune-driver", daemon=True)

    def join(self, exclusively: Callable[[Callable[[], int]], int]) -> int:
        """Sign on, then begin to beat; the number of this driver among all there ever were, from 0."""
        number = exclusively(self._sign_on)
        self._thread.start()
        return number

    def _sign_on(self) -> int:
        known = self._entries()
        earlier = known.get(self.own, {"number": len(known), "beats": 0})
        self._write(number=earlier["number"], has_left=False, runs=[])
        self._n_beats = earlier["beats"]
        self._beat()
        self.look(time.monotonic())
        return int(self._entry["number"])

    def sign_off(self) -> None:
        """Say that this driver beats no more, so that the others need not wait to find out; what it left is theirs."""
        self._write(has_left=True, runs=[])

    def fall_silent(self) -> None:
        """Beat no more."""
        self._has_left.set()
        if self._thread.is_alive():
            self._thread.join()

    def note_runs(self, runs: list[dict[str, Any]]) -> None:
        """Tell the others which proof runs this driver is at."""
        self._write(runs=runs)

    def runs_elsewhere(self) -> list[dict[str, Any]]:
        """The proof runs that other living drivers are at."""
        return [run for entry in self._others_alive().values() for run in entry["runs"]]

    def others_alive(self) -> set[str]:
        """The names of the other drivers that are still at work."""
        return set(self._others_alive())

    def look(self, now: float) -> None:
        """See which counters have moved since the last look; ``now`` in seconds of a steady clock."""
        if now - self._looked_at > SECONDS_OF_GRACE / 2.0:
            self._seen = {}
        for name, entry in self._entries().items():
            if name not in self._seen or self._seen[name][0] != entry["beats"]:
                self._seen[name] = (entry["beats"], now)
        self._looked_at = now

    def _others_alive(self) -> dict[str, dict[str, Any]]:
        entries = self._entries().items()
        return {n: entry for n, entry in entries if not (n == self.own or entry["has_left"] or self._is_dead(n, entry))}

    def _is_dead(self, name: str, entry: Mapping[str, Any]) -> bool:
        beats, since = self._seen.get(name, (None, 0.0))
        return beats == entry["beats"] and self._looked_at - since >= SECONDS_OF_GRACE

    def _entries(self) -> dict[str, dict[str, Any]]:
        attributes = self._study.user_attrs
        names = [name.removeprefix(DRIVER) for name in attributes if name.startswith(DRIVER)]
        return {name: {**attributes[DRIVER + name], "beats": attributes[BEATS + name]} for name in names}

    def _write(self, **changes: Any) -> None:
        self._entry = {**self._entry, **changes}
        self._study.set_user_attr(DRIVER + self.own, self._entry)

    def _beat(self) -> None:
        """Written apart: the thread that beats must not wait for an action of the driver's own, nor that for it."""
        self._n_beats += 1
        self._study.set_user_attr(BEATS + self.own, self._n_beats)

    def _beat_until_left(self) -> None:
        while not self._has_left.wait(SECONDS_BETWEEN_BEATS):
            try:
                self._beat()
                self.look(time.monotonic())
            except (*DATABASE_ERRORS, KeyError):  # the driver's own thread meets the same, and says so
                continue
