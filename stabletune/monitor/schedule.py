"""When to measure: at fixed steps, or as a deterministic budget in gradient equivalents allows.

In: the step, each measurement, look and glance with its cost. Out: which of them is due. The clock plays no part, so
that the same seed gives the same readings.
"""

from __future__ import annotations

import math
from typing import Protocol

from stabletune.records import Measurement

GLANCE_SHARE = 0.06
EARLY_STEPS = 100
REPAID_BY = 1100
FIRST_STEP = 10
LATEST_FIRST_STEP = 20
PROMISED_READINGS = 2
SHORTEST_PROMISE = 50
FIRST_COST = 13.0
TYPICAL_COST = 5.0
GLANCE_COST = 0.25
LOOK_COST = 0.25
EDGE = 1.0
NEAR_EDGE = 0.7
HELD_SHARE = 0.05
HELD_SHARE_NEAR_EDGE = 0.75
MOST_HELD = 60.0
SHORTEST_GAP = 3
FOLLOWED_COSTS = 6.0
STALE = 10.0
READINGS_FOR_A_VERDICT = 3
VERDICT_GAP = 4
LONGEST_EPISODE = 60
STEADY_GAP = 20
FALLEN = 0.97
FALLING_LOOK = 10
CLOSE = 0.93
CLOSE_STEPS = 30
APPROACH_COSTS = 2.5
PAST_EDGE = 2.0
LONGEST_LOOK = 50
LEARNING_RATE = 0.3
LARGEST_LEAD = 0.02


class Schedule(Protocol):
    """When to measure. The questions depend on what was recorded alone: they may be asked ahead and repeatedly."""

    def is_due(self, step: int) -> bool:
        """Whether to measure at this step, counted from 1."""

    def record(self, measurement: Measurement, cost: float) -> None:
        """Take note of a measurement and of its cost in gradient equivalents."""

    def is_look_due(self, step: int) -> bool:
        """Whether to ask what S is by now, as far as the optimizer's state tells."""

    def record_look(self, step: int, ratio: float | None, growth: float, cost: float) -> None:
        """Take note of that, and of how fast S may grow: d log S / dt at most, by the optimizer's state alone."""

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

    def is_look_due(self, step: int) -> bool:
        """Never: every N-th step was asked for."""
        return False

    def record_look(self, step: int, ratio: float | None, growth: float, cost: float) -> None:
        """Do nothing: there are none."""

    def is_glance_due(self, step: int) -> bool:
        """Never: every N-th step was asked for."""
        return False

    def record_glance(self, cost: float) -> None:
        """Do nothing: there are none."""


class Budget:
    """Spend ``overhead`` gradients per step on measuring, and most of it where S may be passing 1.

    income  o t, and o min(t, 100) in advance, paid back evenly by step 1,100 (T known: by T, if that is earlier);
            0.06 of it for glances
    steady  a reading whenever the account, less what is held back for the edge, pays for one
    held    0.05 of the income, 0.75 while S was last at 0.7 or more; at most 60 gradients
    edge    a reading, from all there is, once S may have passed 1: log S_frozen + u Δt ≥ 0, with S_frozen by
            ``FrozenCurvature`` and u how fast S has lately run ahead of it. It asks for 2.5 readings' worth, since it
            mostly comes early; one within 30 steps of S ≥ 0.93 asks for one, two steps past the forecast
            while S is above 1, every 3 steps as long as six more could be paid for, else every 4 up to the third where
            v̂ staleness is 10 or more (a verdict takes three over 8 steps), and once S_frozen has fallen below 0.97 or
            after 60 steps
    looks   S_frozen is asked for when S could be at 1, if nothing entered v and H ran ahead at u

    The first reading comes at step 10 (T known: at T/20, within 10-20), the second at 50 at the latest (T known: at the
    end), both on credit: a short run that measured nothing would tell nothing. So runs of 50 steps or more have two
    readings even where o t does not pay for them. Over T known steps the last is at 0.98 T.

    S > 1 lasts 12-31 steps, too short for a steady cadence; but v̂ is known at every step, and between two readings it
    is mostly v̂ that moves S.

    Args:
        overhead: o, in gradients per step; one training step counts as one gradient.
        steps: T, if known.
    """

    def __init__(self, overhead: float, steps: int | None = None) -> None:
        self._overhead = overhead
        self._steps = steps
        self._first = FIRST_STEP if steps is None else min(steps, LATEST_FIRST_STEP, max(FIRST_STEP, steps // 20))
        self._last_planned = 0 if steps is None else steps - steps // 50
        self._spent = 0.0
        self._glance_spent = 0.0
        self._glance_cost = GLANCE_COST
        self._expected_cost = FIRST_COST
        self._n_readings = 0
        self._last_step = 0
        self._last_ratio: float | None = None
        self._held = 0.0
        self._held_since = 0
        self._looked_at = 0
        self._n_above = 0
        self._staleness = 0.0
        self._next_look: int | None = None
        self._may_have_crossed = False
        self._frozen_ratio: float | None = None
        self._lead = 0.0

    def is_due(self, step: int) -> bool:
        """Whether a reading is promised, or paid for: near the edge from all there is, else from what is not held."""
        if step <= self._last_step:
            return False
        if self._n_readings < PROMISED_READINGS and self._is_promised(step):
            return True
        if self._n_readings == 0:
            return False
        account = self._account(step)
        if account < self._expected_cost or not self._leaves_the_last(step, account):
            return False
        if self._is_at_edge(step, account) or self._is_last(step):
            return True
        is_fresh = self._is_near() and step - self._last_step < STEADY_GAP
        return not is_fresh and account - self._held_at(step) >= self._expected_cost

    def record(self, measurement: Measurement, cost: float) -> None:
        """Charge the account, learn how S moves, and hold back more or less of the income to come."""
        step, ratio = measurement.step, measurement.sharpness_ratio
        held = self._held_at(step)
        self._held = max(0.0, held - cost) if self._is_at_edge(step, self._account(step)) else held
        self._held_since = step
        self._learn_lead(step, ratio)
        self._spent += cost
        if self._n_readings == 0:  # the first starts from nothing; those to come follow the last direction
            self._expected_cost = cost / 2 if cost > 0 else TYPICAL_COST
        elif cost > 0:  # a restart costs twice a warm measurement: expect neither alone
            self._expected_cost += 0.25 * (cost - self._expected_cost)
        self._n_readings += 1
        self._last_step = self._looked_at = step
        self._n_above = self._n_above + 1 if ratio is not None and ratio >= EDGE else 0
        self._staleness = measurement.v_hat_staleness or 0.0
        self._last_ratio = self._frozen_ratio = ratio
        self._may_have_crossed = False
        self._next_look = step + 1 if ratio is not None and ratio > 0 else None

    def is_look_due(self, step: int) -> bool:
        """Whether S could have reached the edge since the last look, and a reading could be paid for."""
        if self._may_have_crossed or self._next_look is None or step < self._next_look:
            return False
        account = self._account(step)
        return account >= self._approach_cost(step) and self._leaves_the_last(step, account)

    def record_look(self, step: int, ratio: float | None, growth: float, cost: float) -> None:
        """Judge whether S may have passed the edge, and plan the next look."""
        self._held, self._held_since = max(0.0, self._held_at(step) - cost), step
        self._spent += cost
        before, since = self._frozen_ratio, self._looked_at
        self._frozen_ratio, self._looked_at = ratio, step
        if ratio is None or ratio <= 0:
            self._next_look = None
            return
        highest = math.log(ratio) + self._lead * (step - self._last_step)
        if self._last_ratio is not None and self._last_ratio >= EDGE:
            self._may_have_crossed = ratio < FALLEN or step - self._last_step >= LONGEST_EPISODE
            self._next_look = step + FALLING_LOOK
            return
        rate = growth + self._lead
        self._may_have_crossed = highest >= 0
        if self._is_close(step) and before:
            pace = max(0.0, math.log(ratio / before) / max(1, step - since)) + self._lead
            self._may_have_crossed = highest >= PAST_EDGE * pace
        wait = -highest / rate if rate > 0 else LONGEST_LOOK
        self._next_look = step + max(1, min(LONGEST_LOOK, int(wait)))

    def is_glance_due(self, step: int) -> bool:
        """Whether a tenth of the income so far pays for what the optimizer's state tells by itself."""
        return self._glance_spent + self._glance_cost <= GLANCE_SHARE * self._overhead * step

    def record_glance(self, cost: float) -> None:
        """Charge the glances' own purse."""
        self._glance_spent += cost
        self._glance_cost = cost

    def _account(self, step: int) -> float:
        return (1 - GLANCE_SHARE) * self._overhead * (step + self._advance(step)) - self._spent

    def _advance(self, step: int) -> float:
        end = REPAID_BY if self._steps is None else min(REPAID_BY, self._steps)
        if step <= EARLY_STEPS:
            return float(step if end > EARLY_STEPS else 0)
        return EARLY_STEPS * max(0.0, (end - step) / (end - EARLY_STEPS))

    def _held_at(self, step: int) -> float:
        share = HELD_SHARE_NEAR_EDGE if self._is_near() else HELD_SHARE
        return min(MOST_HELD, self._held + share * self._overhead * (step - self._held_since))

    def _is_near(self) -> bool:
        return self._last_ratio is not None and self._last_ratio >= NEAR_EDGE

    def _is_at_edge(self, step: int, account: float) -> bool:
        gap = step - self._last_step
        if self._last_ratio is None or gap < SHORTEST_GAP:
            return False
        if self._last_ratio >= EDGE:
            if account >= FOLLOWED_COSTS * self._expected_cost or (gap >= VERDICT_GAP and self._is_judged()):
                return True
        return self._may_have_crossed and account >= self._approach_cost(step)

    def _is_judged(self) -> bool:
        """Whether more readings are wanted for a verdict on S > 1: v̂ is stale, and few readings have shown it yet."""
        return self._staleness >= STALE and self._n_above < READINGS_FOR_A_VERDICT

    def _approach_cost(self, step: int) -> float:
        """What a reading near the edge must leave room for: the first one has to be followed by another."""
        return self._expected_cost * (1.0 if self._is_close(step) else APPROACH_COSTS)

    def _is_close(self, step: int) -> bool:
        return self._last_ratio is not None and self._last_ratio >= CLOSE and step - self._last_step <= CLOSE_STEPS

    def _is_promised(self, step: int) -> bool:
        if self._n_readings == 0:
            return step >= self._first
        if self._steps is None:
            return step >= SHORTEST_PROMISE
        return self._steps >= SHORTEST_PROMISE and self._is_last(step)

    def _leaves_the_last(self, step: int, account: float) -> bool:
        """Whether the reading at the end of the known steps can still be paid for after one here."""
        if self._steps is None or step >= self._last_planned:
            return True
        to_come = self._account(self._last_planned) - self._account(step)
        return account + to_come >= 2 * self._expected_cost

    def _is_last(self, step: int) -> bool:
        return self._steps is not None and step == self._last_planned

    def _learn_lead(self, step: int, ratio: float | None) -> None:
        """How fast S has run ahead of its frozen-curvature value on the way to the edge, in log per step."""
        if ratio is None or ratio <= 0 or not self._frozen_ratio or not 0 < self._frozen_ratio < EDGE:
            return
        if self._last_ratio is None or self._last_ratio >= EDGE:
            return
        lead = math.log(ratio / self._frozen_ratio) / (step - self._last_step)
        self._lead += LEARNING_RATE * (min(max(lead, 0.0), LARGEST_LEAD) - self._lead)
