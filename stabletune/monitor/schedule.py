"""When to measure: at fixed steps, or as a deterministic budget in gradient equivalents allows.

In: the step, each measurement, look and glance with its cost. Out: which of them is due. The clock plays no part, so
that the same seed gives the same readings.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from stabletune.monitor.account import Account
from stabletune.monitor.approach import Approach

GLANCE_SHARE = 0.25
STEADY_GLANCE_SHARE = 0.1
SHORTEST_GLANCE_GAP = 2
FIRST_STEP = 10
LATEST_FIRST_STEP = 20
PROMISED_READINGS = 2
SHORTEST_PROMISE = 50
TYPICAL_COST = 5.0
GLANCE_COST = 0.25
LOOK_COST = 0.25
HELD_SHARE = 0.05
HELD_SHARE_NEAR_EDGE = 0.95
STEADY_GAP = 20
SHORTEST_GAP = 3
GRADIENT_EVERY = 5
GRADIENT_COSTS = 3.0
FOLLOWED_COSTS = 6.0
APPROACH_COSTS = 1.5


class Extras(NamedTuple):
    """What a reading has beside the top vector: the gradient with its product, a second vector, the oscillation."""

    gradient: bool
    second_vector: bool
    oscillation: bool


class Schedule(Protocol):
    """When to measure. The questions depend on what was recorded alone: they may be asked ahead and repeatedly.

    Steps are counted from where the watching began.
    """

    def is_due(self, step: int) -> bool:
        """Whether to measure at this step, counted from 1."""

    def record(self, step: int, ratio: float | None, cost: float, *, foreseen: float | None = None) -> None:
        """Take note of the S that was read, its cost in gradient equivalents, and what it was foreseen to be."""

    def charge(self, step: int, cost: float) -> None:
        """Take note of a cost that bought no measurement."""

    def extras(self, step: int) -> Extras:
        """Return what a reading at this step should take in beside the top vector."""

    def is_look_due(self, step: int) -> bool:
        """Whether to ask what S is by now, as far as the optimizer's state tells."""

    def record_look(self, step: int, ratio: float | None, *, growth: float, cost: float) -> None:
        """Take note of that, and of how fast S may grow by v̂ alone, d log S / dt at most."""

    def is_glance_due(self, step: int, *, is_asked_for: bool = False) -> bool:
        """Whether to read what needs neither a loss nor a product; more is left for what is asked for."""

    def record_glance(self, step: int, cost: float) -> None:
        """Take note of such a reading and of its cost in gradient equivalents."""


class EveryNth:
    """Measure at each N-th step of the training, of which ``start_step`` came before the watching began."""

    def __init__(self, every: int, start_step: int = 0) -> None:
        self._every, self._start_step = every, start_step

    def is_due(self, step: int) -> bool:
        """Whether the step is a multiple of N."""
        return (self._start_step + step) % self._every == 0

    def record(self, step: int, ratio: float | None, cost: float, *, foreseen: float | None = None) -> None:
        """Do nothing: the cadence is fixed."""

    def charge(self, step: int, cost: float) -> None:
        """Do nothing: the cadence is fixed."""

    def extras(self, step: int) -> Extras:
        """Everything: every reading is to have every field, and what overtakes has mostly been the second one."""
        return Extras(gradient=True, second_vector=True, oscillation=True)

    def is_look_due(self, step: int) -> bool:
        """Never: every N-th step was asked for."""
        return False

    def record_look(self, step: int, ratio: float | None, *, growth: float, cost: float) -> None:
        """Do nothing: there are none."""

    def is_glance_due(self, step: int, *, is_asked_for: bool = False) -> bool:
        """Never: every N-th step was asked for, and has the oscillation in it."""
        return False

    def record_glance(self, step: int, cost: float) -> None:
        """Do nothing: there are none."""


class Budget:
    """Spend ``overhead`` gradients per step on measuring, and most of it where S may be passing 1.

    income  o t, some of it in advance (``Account``)
    glances 0.1 of the income at most for steady ones, 0.25 with those asked for, as when an oscillation grows; not at
            two steps in a row
    steady  a reading whenever the account, less what is held back for the edge, pays for one
    held    0.05 of the income, 0.95 while S was last at 0.7 or more; at most five readings' worth
    edge    a reading, from all there is, once S may have passed 1 or its fall is over (``Approach``). It asks for 1.5
            readings' worth, as it mostly comes early and has to be followed by another; where S was at the edge a
            moment ago, for one
    above   while S is, every 3 steps as long as six could be paid for
    looks   S_frozen is asked for when S could be at 1 at its fastest, and a reading could be paid for
    more    a reading takes in the gradient at least every fifth time, and after an episode where three could be paid
            for; the second vector where it is not for the edge, nor in debt

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
        self._last = None if steps is None else steps - steps // 50
        self._account = Account(overhead, steps)
        self._approach = Approach()
        self._n_readings = 0
        self._glance_spent = 0.0
        self._glance_cost = GLANCE_COST
        self._glanced_at = -SHORTEST_GLANCE_GAP

    def is_due(self, step: int) -> bool:
        """Whether a reading is promised, or paid for: near the edge from all there is, else from what is not held."""
        if self._n_readings < PROMISED_READINGS and self._is_promised(step):
            return True
        gap = step - self._approach.last_step
        if self._n_readings == 0 or gap <= 0 or not self._pays(step, 1.0):
            return False
        if self._is_at_edge(step) or step == self._last:
            return True
        is_fresh = self._approach.is_near and gap < STEADY_GAP and not self._pays(step, FOLLOWED_COSTS)
        return not is_fresh and self._account.free(step) >= self._account.expected_cost

    def record(self, step: int, ratio: float | None, cost: float, *, foreseen: float | None = None) -> None:
        """Charge the account, learn how S moves, and hold back more or less of the income to come."""
        self._account.charge(step, cost, is_from_held=self._is_at_edge(step))
        self._account.expect(cost or TYPICAL_COST, is_first=self._n_readings == 0)
        self._approach.observe(step, ratio, foreseen)
        self._account.hold(step, HELD_SHARE_NEAR_EDGE if self._approach.is_near else HELD_SHARE)
        self._n_readings += 1

    def charge(self, step: int, cost: float) -> None:
        """Take a cost that bought no measurement from the account."""
        self._account.charge(step, cost, is_from_held=False)

    def extras(self, step: int) -> Extras:
        """The gradient every fifth time, or after an episode where three readings could be paid for.

        The second vector unless it is for the edge, where the one on top is asked for, or in debt.
        """
        is_anew = self._approach.is_after_episode and self._pays(step, GRADIENT_COSTS)
        return Extras(
            gradient=is_anew or (self._n_readings + 1) % GRADIENT_EVERY == 0,
            second_vector=not self._is_at_edge(step) and self._pays(step, 1.0),
            oscillation=False,
        )

    def is_look_due(self, step: int) -> bool:
        """Whether S could have reached the edge since the last look, and a reading could be paid for."""
        planned = self._approach.next_look
        if self._approach.may_have_crossed or planned is None or step < planned:
            return False
        return self._pays(step, self._n_costs_of_an_approach(step))

    def record_look(self, step: int, ratio: float | None, *, growth: float, cost: float) -> None:
        """Judge whether S may have passed the edge, and plan the next look."""
        self._account.charge(step, cost, is_from_held=True)
        self._approach.look(step, ratio, growth)

    def is_glance_due(self, step: int, *, is_asked_for: bool = False) -> bool:
        """Whether the glances' share of the income so far pays for what the optimizer's state tells by itself."""
        if step - self._glanced_at < SHORTEST_GLANCE_GAP:
            return False
        share = GLANCE_SHARE if is_asked_for else STEADY_GLANCE_SHARE
        return self._glance_spent + self._glance_cost <= share * self._overhead * step

    def record_glance(self, step: int, cost: float) -> None:
        """Charge the account, and the share of it that glances may take."""
        self._account.charge(step, cost, is_from_held=True)
        self._glance_spent += cost
        self._glance_cost = cost
        self._glanced_at = step

    def _is_at_edge(self, step: int) -> bool:
        gap = step - self._approach.last_step
        if not self._approach.is_known or gap < SHORTEST_GAP:
            return False
        if self._approach.is_above and self._pays(step, FOLLOWED_COSTS):
            return True
        return self._approach.may_have_crossed and self._pays(step, self._n_costs_of_an_approach(step))

    def _n_costs_of_an_approach(self, step: int) -> float:
        """How many readings must be affordable near the edge: the first one has to be followed by another."""
        return 1.0 if self._approach.is_close(step) else APPROACH_COSTS

    def _is_promised(self, step: int) -> bool:
        if step <= self._approach.last_step:
            return False
        if self._n_readings == 0:
            return step >= self._first
        if self._steps is None:
            return step >= SHORTEST_PROMISE
        return self._steps >= SHORTEST_PROMISE and step == self._last

    def _pays(self, step: int, n_costs: float) -> bool:
        """Whether the account pays for so many readings, and still for the one at the end of the known steps."""
        balance, cost = self._account.balance(step), self._account.expected_cost
        if self._last is None or step >= self._last:
            return balance >= n_costs * cost
        for_glances = STEADY_GLANCE_SHARE * self._overhead * (self._last - step)
        return balance >= n_costs * cost and self._account.balance(self._last) - for_glances >= 2 * cost


def make_schedule(every: int | None, overhead: float, steps: int | None = None, *, start_step: int = 0) -> Schedule:
    """The schedule that these settings ask for; a ValueError if one is out of range."""
    if every is not None:
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise ValueError(
                f"StabilityMonitor: every must be a whole number of at least 1, but got {every!r}. "
                "Leave it out to measure by overhead."
            )
        return EveryNth(every, start_step)
    if isinstance(overhead, bool) or not isinstance(overhead, (int, float)) or not 0 < overhead <= 1:
        raise ValueError(
            f"StabilityMonitor: 0 < overhead <= 1 must hold, but got {overhead!r}. Give a share such as 0.05."
        )
    if steps is not None and (isinstance(steps, bool) or not isinstance(steps, int) or steps < 1):
        raise ValueError(
            f"StabilityMonitor: steps must be a whole number of at least 1, but got {steps!r}. "
            "Leave it out if the length is unknown."
        )
    return Budget(overhead, steps)
