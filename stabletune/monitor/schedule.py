"""When to measure: a deterministic budget in gradient equivalents, never the clock. thin"""

from __future__ import annotations

from typing import Protocol

from stabletune.records import Measurement


class Schedule(Protocol):
    """When to measure."""

    def is_due(self, step: int) -> bool:
        """Whether to measure at this step."""

    def record(self, measurement: Measurement, cost: float) -> None:
        """Take note of a measurement and of what it cost."""


class EveryNth:
    """Measure at each N-th step."""

    def __init__(self, every: int) -> None:
        self._every = every

    def is_due(self, step: int) -> bool:
        """Whether the step is a multiple of N."""
        return step % self._every == 0

    def record(self, measurement: Measurement, cost: float) -> None:
        """Nothing to note: the cadence is fixed."""


class Budget:
    """thin"""

    def __init__(self, overhead: float, steps: int | None) -> None:
        self._overhead = overhead
        self._spent = 0.0
        self._cost = 8.0

    def is_due(self, step: int) -> bool:
        """Whether the budget allows it."""
        return self._spent + self._cost <= self._overhead * step

    def record(self, measurement: Measurement, cost: float) -> None:
        """Spend."""
        self._spent += cost
        self._cost = cost
