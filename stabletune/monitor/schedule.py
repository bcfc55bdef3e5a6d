"""When to measure: at fixed steps, or as a deterministic budget in gradient equivalents allows.

In: the step, and each measurement with its cost. Out: whether to measure, in full or only what is nearly free. The
clock plays no part, so that the same seed gives the same readings.
"""

from __future__ import annotations

from typing import Protocol

from stabletune.records import Measurement

BASE_SHARE = 0.5
GLANCE_SHARE = 0.1
RESERVE_SHARE = 0.4
EARLY_STEPS = 100
EARLY_SHARE = 0.25
EARLY_MOST = 120.0
FIRST_STEP = 10
LATEST_FIRST_STEP = 20
PROMISED_READINGS = 2
SHORTEST_PROMISE = 50
NEAR_EDGE = 0.9
NEAR_GAP = 9
AT_EDGE = 0.97
AT_EDGE_GAP = 3
STALE = 10.0
FIRST_COST = 13.0
TYPICAL_COST = 8.0
GLANCE_COST = 0.25


class Schedule(Protocol):
    """When to measure. The questions depend on what was recorded alone: they may be asked ahead and repeatedly."""

    def is_due(self, step: int) -> bool:
        """Whether to measure at this step, counted from 1."""

    def record(self, measurement: Measurement, cost: float) -> None:
        """Take note of a measurement and of its cost in gradient equivalents."""

    def is_glance_due(self, step: int) -> bool:
        """Whether to read, at this step, what needs neither a loss nor a product."""

    def record_glance(self, cost: float) -> None:
        """Take note of such a reading and of its cost in gradient equivalents."""


class EveryNth:
    """Measure at each N-th step."""

    def __init__(self, every: int) -> None:
        self._every = every

    def is_due(self, step: int) -> bool:
        """Whether the step is a multiple of N."""
        return step % self._every == 0

    def record(self, measurement: Measurement, cost: float) -> None:
        """Do nothing: the cadence is fixed."""

    def is_glance_due(self, step: int) -> bool:
        """Never: every N-th step was asked for."""
        return False

    def record_glance(self, cost: float) -> None:
        """Do nothing: there are none."""


class Budget:
    """Spend ``overhead`` gradients per step on measuring: half at a base cadence, 0.4 near the edge, 0.1 on glances.

    base, T known:   as many readings as o T/2 still pays for, spread anew after each one over what is left of
                     u(t) = e min(1, t/100) + (1-e) t/T, the last at 0.98 T (if need be from the reserve);
                     e = ¼ at most, 0 up to T = 100
    base, T unknown: (o/2) (t + min(t, 100)): the first 100 steps get all there is
    reserve:         what is left of o t;  0.4 o T (¼ + ¾ t/T) over T known steps, so that one early approach cannot
                     empty it

    The first reading comes at step 10 (T known: at T/20, within 10-20), the second at 50 at the latest (T known: at the
    end), both on credit: a short run that measured nothing would tell nothing. So runs of 50 steps or more have two
    readings even where o t does not pay for them; in longer ones the debt is paid back before anything else is read.

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
        self._glance_spent = 0.0
        self._expected_cost = FIRST_COST
        self._n_readings = 0
        self._last_step = 0
        self._gap: int | None = None
        self._next_base: float = FIRST_STEP
        if steps is not None:
            self._next_base = min(steps, LATEST_FIRST_STEP, max(FIRST_STEP, steps // 20))

    def is_due(self, step: int) -> bool:
        """Whether one of the two purses can pay for the next measurement."""
        if self._gap is not None and step - self._last_step < self._gap:
            return False
        return self._pays_from_base(step) or self._pays_from_reserve(step)

    def record(self, measurement: Measurement, cost: float) -> None:
        """Charge the purse that paid, judge whether the edge is near, and plan the next reading."""
        step = measurement.step
        is_reserve = not self._pays_from_base(step) and self._pays_from_reserve(step)
        if is_reserve:
            self._reserve_spent += cost
        else:
            self._base_spent += cost
        if self._n_readings == 0:  # the first starts from nothing; those to come follow the last direction
            self._expected_cost = TYPICAL_COST
        elif cost > 0:  # a restart costs twice a warm measurement: expect neither alone
            self._expected_cost += 0.25 * (cost - self._expected_cost)
        self._n_readings += 1
        self._last_step = step
        ratio, staleness = measurement.sharpness_ratio, measurement.v_hat_staleness
        is_near = ratio is not None and staleness is not None and ratio >= NEAR_EDGE and staleness >= STALE
        self._gap = (AT_EDGE_GAP if ratio is not None and ratio >= AT_EDGE else NEAR_GAP) if is_near else None
        if not is_reserve:
            self._next_base = self._plan(step)

    def is_glance_due(self, step: int) -> bool:
        """Whether a tenth of the budget so far pays for what the optimizer's state tells by itself."""
        return self._glance_spent + GLANCE_COST <= GLANCE_SHARE * self._overhead * step

    def record_glance(self, cost: float) -> None:
        """Charge the glances' own purse."""
        self._glance_spent += cost

    @property
    def _spent(self) -> float:
        return self._base_spent + self._reserve_spent

    def _pays_from_base(self, step: int) -> bool:
        if self._is_planned(step):
            return step >= self._next_base
        if self._n_readings < PROMISED_READINGS:
            return step >= (self._next_base if self._n_readings == 0 else SHORTEST_PROMISE)
        allowance = BASE_SHARE * self._overhead * (step + (min(step, EARLY_STEPS) if self._steps is None else 0))
        return self._base_spent + self._expected_cost <= allowance

    def _pays_from_reserve(self, step: int) -> bool:
        if self._gap is None or step - self._last_step < self._gap:
            return False
        horizon = step if self._steps is None else max(step, self._steps)
        if self._spent + self._glance_spent + self._expected_cost > self._overhead * horizon:
            return False
        return self._reserve_spent + self._expected_cost <= self._reserve_allowance(step)

    def _is_planned(self, step: int) -> bool:
        return self._steps is not None and step <= self._steps

    def _plan(self, step: int) -> float:
        """Return the step of the next base reading over T known steps; infinite when it would not be paid."""
        if self._steps is None or step > self._steps:
            return float("inf")
        half = BASE_SHARE * self._overhead * self._steps
        n_left = int((half - self._base_spent) / self._expected_cost)
        if self._steps >= SHORTEST_PROMISE:
            n_left = max(n_left, PROMISED_READINGS - self._n_readings)
        if self._spent + self._expected_cost <= (1 - GLANCE_SHARE) * self._overhead * self._steps:
            n_left = max(n_left, 1)
        last = self._steps - self._steps // 50
        if n_left < 1 or step >= last:
            return float("inf")
        early = min(EARLY_SHARE, EARLY_MOST / half) if self._steps > EARLY_STEPS else 0.0
        here, end = _share(step, self._steps, early), _share(last, self._steps, early)
        return _step_at(here + (end - here) / n_left, self._steps, early)

    def _reserve_allowance(self, step: int) -> float:
        per_step = RESERVE_SHARE * self._overhead
        if self._steps is None:
            return per_step * max(0, step - EARLY_STEPS)
        return per_step * (EARLY_SHARE * self._steps + (1 - EARLY_SHARE) * step)


def _share(step: float, steps: int, early: float) -> float:
    """u(t), the share of the base readings that come up to a step."""
    return early * min(1.0, step / EARLY_STEPS) + (1 - early) * step / steps


def _step_at(share: float, steps: int, early: float) -> float:
    """The step at which u(t) reaches a share: its inverse."""
    knee = _share(EARLY_STEPS, steps, early)
    if early > 0 and share < knee:
        return EARLY_STEPS * share / knee
    return (share - early) * steps / (1 - early)
