"""When to measure: at fixed steps, or as a deterministic budget in gradient equivalents allows.

In: the step, and each measurement with its cost. Out: whether to measure. The clock plays no part, so that the same
seed gives the same readings.
"""

from __future__ import annotations

from typing import Protocol

from stabletune.records import Measurement

EARLY_STEPS = 100
EARLY_SHARE = 0.25
NEAR_EDGE = 0.9
NEAR_GAP = 9
AT_EDGE = 0.97
AT_EDGE_GAP = 3
STALE = 10.0
FIRST_COST = 13.0


class Schedule(Protocol):
    """When to measure. ``is_due`` depends on what was recorded alone, so that it may be asked ahead and repeatedly."""

    def is_due(self, step: int) -> bool:
        """Whether to measure at this step, counted from 1."""

    def record(self, measurement: Measurement, cost: float) -> None:
        """Take note of a measurement and of its cost in gradient equivalents."""


class EveryNth:
    """Measure at each N-th step."""

    def __init__(self, every: int) -> None:
        self._every = every

    def is_due(self, step: int) -> bool:
        """Whether the step is a multiple of N."""
        return step % self._every == 0

    def record(self, measurement: Measurement, cost: float) -> None:
        """Do nothing: the cadence is fixed."""


class Budget:
    """Spend at most ``overhead`` gradients per step on measuring: half at a base cadence, half kept for the edge.

    base:    (o/2) (t + min(t, 100))  while the horizon is open: the first 100 steps get all there is;
             (o T/2) (¼ min(1, t/100) + ¾ t/T)  over T known steps, for a quarter of it in the first 100
    reserve: what is left of o t;  (o T/2) (¼ + ¾ t/T) over T known steps, so that one early approach cannot empty it

    The reserve is for readings near the edge, where the last S was at least 0.9 and v̂ staleness at least 10: every 9
    steps, and every 3 from S = 0.97 (a decoupled v̂ at b2 = 0.999 takes 60 steps from there to the edge, 6 at 0.99).
    Either alone is normal: full-batch Adam rests at S of 0.93-1 with a fresh v̂ (staleness 1-10) and does not spike,
    while S > 1 with a stale one lasts 12-31 steps, too short for the base cadence.

    Args:
        overhead: o, in gradients per step; one training step counts as one gradient.
        steps: T, if known.
    """

    def __init__(self, overhead: float, steps: int | None = None) -> None:
        self._overhead = overhead
        self._steps = steps
        self._base_spent = 0.0
        self._reserve_spent = 0.0
        self._expected_cost = FIRST_COST
        self._last_step = 0
        self._gap: int | None = None

    def is_due(self, step: int) -> bool:
        """Whether one of the two purses can pay for the next measurement."""
        if self._base_spent + self._expected_cost <= self._base_allowance(step):
            return True
        return self._pays_from_reserve(step)

    def record(self, measurement: Measurement, cost: float) -> None:
        """Charge the purse that paid, and judge whether the edge is near."""
        if self._pays_from_reserve(measurement.step):
            self._reserve_spent += cost
        else:
            self._base_spent += cost
        if cost > 0:  # a restart costs twice a warm measurement: expect neither alone
            self._expected_cost = 0.5 * (self._expected_cost + cost)
        self._last_step = measurement.step
        ratio, staleness = measurement.sharpness_ratio, measurement.v_hat_staleness
        is_near = ratio is not None and staleness is not None and ratio >= NEAR_EDGE and staleness >= STALE
        self._gap = (AT_EDGE_GAP if ratio is not None and ratio >= AT_EDGE else NEAR_GAP) if is_near else None

    def _pays_from_reserve(self, step: int) -> bool:
        if self._gap is None or step - self._last_step < self._gap:
            return False
        return self._reserve_spent + self._expected_cost <= self._reserve_allowance(step)

    def _base_allowance(self, step: int) -> float:
        half = 0.5 * self._overhead
        if self._steps is None:
            return half * (step + min(step, EARLY_STEPS))
        early = EARLY_SHARE if self._steps > EARLY_STEPS else 0.0
        return half * self._steps * (early * min(1.0, step / EARLY_STEPS) + (1 - early) * step / self._steps)

    def _reserve_allowance(self, step: int) -> float:
        if self._steps is not None:
            reserve = 0.5 * self._overhead * self._steps
            return reserve * (EARLY_SHARE + (1 - EARLY_SHARE) * min(1.0, step / self._steps))
        return 0.5 * self._overhead * max(0, step - EARLY_STEPS)
