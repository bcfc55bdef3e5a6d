"""What measuring may cost so far, what is set aside for the edge, and what the next reading will probably cost.

In: each cost in gradients. Out: a balance in gradients; nothing here knows what S is.
"""

from __future__ import annotations

EARLY_STEPS = 100
REPAID_BY = 1100
FIRST_COST = 13.0  # eight products of 1.5 gradients and the graph
MOST_HELD = 5.0  # readings: what two crossings take; more only starves the steady ones
LEARNING_RATE = 0.25


class Account:
    """Income of ``rate`` gradients per step, and min(t, 100) steps' worth in advance, paid back evenly by step 1,100.

    Over T < 1,100 known steps the advance is T / 1,100 of that, paid back by T: there must be income left to the end.

    Args:
        rate: gradients per step.
        steps: how long the run is, if known.
    """

    def __init__(self, rate: float, steps: int | None) -> None:
        self._rate = rate
        self._repaid_by = REPAID_BY if steps is None else min(REPAID_BY, steps)
        self._early_share = self._repaid_by / REPAID_BY
        self._spent = 0.0
        self._held = 0.0
        self._held_share = 0.0
        self._held_since = 0
        self.expected_cost = FIRST_COST

    def balance(self, step: int) -> float:
        """What is there at a step."""
        return self._rate * (step + self._advance(step)) - self._spent

    def free(self, step: int) -> float:
        """What is there and not held back."""
        return self.balance(step) - self._held_at(step)

    def hold(self, step: int, share: float) -> None:
        """From this step on, hold back a share of the income: at most five readings' worth."""
        self._held, self._held_since, self._held_share = self._held_at(step), step, share

    def charge(self, step: int, cost: float, *, is_from_held: bool) -> None:
        """Take a cost, from what is held back first if it was held back for this."""
        self._held, self._held_since = self._held_at(step), step
        if is_from_held:
            self._held = max(0.0, self._held - cost)
        self._spent += cost

    def expect(self, cost: float, *, is_first: bool) -> None:
        """Learn from what a reading has cost: the first starts from nothing, those to come follow its direction."""
        if is_first:
            self.expected_cost = cost / 2
        else:
            self.expected_cost += LEARNING_RATE * (cost - self.expected_cost)

    def _advance(self, step: int) -> float:
        if self._repaid_by <= EARLY_STEPS:
            return 0.0
        if step <= EARLY_STEPS:
            return self._early_share * step
        left = max(0.0, (self._repaid_by - step) / (self._repaid_by - EARLY_STEPS))
        return self._early_share * EARLY_STEPS * left

    def _held_at(self, step: int) -> float:
        held = self._held + self._held_share * self._rate * (step - self._held_since)
        return min(MOST_HELD * self.expected_cost, held)
