"""What every benchmark here shares: medians, and printing one figure a line with its limit."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable


def seconds_of(action: Callable[[], object], repeats: int = 7) -> float:
    """The median wall time of an action over some repeats."""
    return statistics.median(_once(action) for _ in range(repeats))


def figure(name: str, value: float, unit: str, limit: str = "") -> None:
    print(f"{name:<58} {value:>10.3f} {unit:<8} {limit}", flush=True)


def _once(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started
