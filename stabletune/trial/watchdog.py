"""Ends a worker process whose trial hangs or takes up the memory, and says why first.

In: the spec's limits and each sign of life. Out: one sentence, then the end of the process: user code that hangs in C
can be ended in no other way. Only for a process of the trial's own.
"""

from __future__ import annotations

import contextlib
import errno
import faulthandler
import itertools
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from stabletune.records import SECONDS_WITHOUT_A_STEP, TrialSpec

SECONDS_OF_GRACE = 5.0
SECONDS_WITHOUT_THE_LOCK = 15.0
SECONDS_BETWEEN_LOOKS = 0.2
LOOKS_BETWEEN_LOOKS_AT_CHILDREN = 10  # the kernel counts their pages one by one
MOST_OPEN_FILES = 0.5
MEMORY_LEFT = 0.03
LARGE_SHARE = 0.25
GIB = 2.0**30


class Watchdog:
    """A thread beside one trial.

    It ends the process 5 seconds after the time of the run is over, after half an hour without a step where it has no
    limit, where the process and those it started outgrow its memory, and where less than 3 % of the machine's memory is
    left and they hold a quarter of it. What it started is ended first. C code that never lets another thread run ends
    15 seconds after its time, without words.

    Args:
        spec: ``seconds`` and ``memory_gib`` are the limits.
        leave: takes the sentence; the process ends when it returns, or raises, as where there is nobody to take it.
        is_in_doubt: asked where memory is short; True ends the process without the sentence, since the trials before
            it may have left what fills the memory.
    """

    def __init__(self, spec: TrialSpec, leave: Callable[[str], None], *, is_in_doubt: bool = False) -> None:
        self._spec, self._leave, self._is_in_doubt = spec, leave, is_in_doubt
        self._looks = itertools.count()
        self._of_children = 0.0
        self._step = 0
        self._began = self._heard = time.monotonic()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="stabletune-watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        self._thread.start()
        self._arm()
        return self

    def __exit__(self, *error: object) -> None:
        self._is_over.set()
        self._thread.join()
        faulthandler.cancel_dump_traceback_later()

    def hear(self, step: int) -> None:
        """A sign of life."""
        self._step, self._heard = step, time.monotonic()
        if self._spec.seconds is None:
            self._arm()

    def _arm(self) -> None:
        """Have the process ended from C, which needs no lock, some time after the thread should have done so."""
        seconds = SECONDS_WITHOUT_A_STEP if self._spec.seconds is None else self._spec.seconds
        stream = sys.__stderr__
        if stream is not None and not stream.closed:
            faulthandler.dump_traceback_later(seconds + SECONDS_WITHOUT_THE_LOCK, exit=True, file=stream)

    def _watch(self) -> None:
        while not self._is_over.wait(SECONDS_BETWEEN_LOOKS):
            fault = self._fault_of_time()
            if fault is None:
                # where it can open no file any more, its time is watched all the same
                with contextlib.suppress(OSError):
                    fault = self._fault_of_memory()
                    if fault is not None and self._is_in_doubt:
                        end_process()
            if fault is not None:
                try:
                    self._leave(f"after step {self._step}: {fault}; the process was ended.")
                finally:
                    end_process()

    def _fault_of_time(self) -> str | None:
        now, spec = time.monotonic(), self._spec
        if spec.seconds is not None:
            if now - self._began > spec.seconds + SECONDS_OF_GRACE:
                return f"not over within the {spec.seconds / 60.0:.3g} minutes that budget.trial_minutes gives it"
        elif now - self._heard > SECONDS_WITHOUT_A_STEP:
            return (
                f"no step for {SECONDS_WITHOUT_A_STEP / 60.0:.0f} minutes, taken for hung (budget.trial_minutes "
                "sets another limit)"
            )
        return None

    def _fault_of_memory(self) -> str | None:
        spec = self._spec
        if next(self._looks) % LOOKS_BETWEEN_LOOKS_AT_CHILDREN == 0:
            self._of_children = sum(map(memory_alone, descendants()))
        own = own_memory() + self._of_children
        if spec.memory_gib is not None and own > spec.memory_gib:
            return f"{own:.2f} GiB of memory are more than resources.memory_gib_per_trial, {spec.memory_gib:g}"
        left, total = machine_memory()
        if left < MEMORY_LEFT * total and own > LARGE_SHARE * total:
            return f"the machine's {total:.1f} GiB of memory are used up, {own:.1f} of them by this trial"
        return None


def end_process() -> NoReturn:
    """End this process at once, and those that it started."""
    try:
        for child in descendants():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(child, signal.SIGKILL)
    finally:
        os._exit(1)


def has_room() -> bool:
    """Whether this process may still open as many files as it has open."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        return len(os.listdir("/dev/fd")) < MOST_OPEN_FILES * most
    except OSError as error:
        return error.errno not in (errno.EMFILE, errno.ENFILE)


def own_memory() -> float:
    """What this process holds in memory, in GiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / GIB


def memory_alone(process: int) -> float:
    """What a process holds and shares with no other, in GiB; 0 for one that is gone or another user's."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0.0
    sizes = dict(line.split(":") for line in lines)
    return sum(float(sizes[name].split()[0]) for name in ("Private_Clean", "Private_Dirty")) * 1024 / GIB


def descendants(process: int | str = "self") -> list[int]:
    """The processes that this one started, and those that they did."""
    children: list[int] = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # ended meanwhile
        for listed in Path(f"/proc/{process}/task").glob("*/children"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                children += map(int, listed.read_text().split())
    return [one for child in children for one in (child, *descendants(child))]


def machine_memory() -> tuple[float, float]:
    """What is left of the machine's memory, or of the container's, and all of it, in GiB."""
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    left, total = (float(lines[name].split()[0]) * 1024 / GIB for name in ("MemAvailable", "MemTotal"))
    group = Path("/sys/fs/cgroup")
    if (group / "memory.max").exists() and (limit := (group / "memory.max").read_text().strip()) != "max":
        total = min(total, float(limit) / GIB)
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        held = float((group / "memory.current").read_text()) - float(stat["inactive_file"])  # without idle file cache
        left = min(left, total - held / GIB)
    return left, total
