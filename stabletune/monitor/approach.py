"""How S moves towards the edge between readings, as far as the optimizer's own state tells.

In: readings, and looks at what S would be with the Hessian of the last one. Out: whether S may have passed 1, and when
to look again.
"""

from __future__ import annotations

import math

from stabletune.judgement.rules import EDGE

NEAR_EDGE = 0.7
CLOSE = 0.93  # where full-batch training rests; from here a forecast is good to a few steps
CLOSE_STEPS = 30
PAST_EDGE = 1.5  # steps beyond the forecast, so that the reading does not come just before the crossing
FALLEN = 0.97  # v̂ has been refilled: the episode is over
AFTER_EPISODE = 0.93  # of S_frozen, which an episode leaves up to 7 % off: read then, and foresee the crossing anew
RISEN = 1.003  # over the lowest S_frozen: beyond what rounding and a last gradient do
REFILLING_LOOK = 5
DOUBT = 0.0004  # of log S_frozen per step, as the Hessian moves
DOUBTED_STEPS = 4
LONGEST_EPISODE = 60
FALLING_LOOK = 10
SHORTEST_LOOK = 2
LONGEST_LOOK = 50
LEARNING_RATE = 0.5
LARGEST_LEAD = 0.02
TELLING_STEPS = 10  # over fewer, a lead is mostly what a reading is off


class Approach:
    """The last S, what its Hessian would make of it since, and how fast S has lately run ahead of that.

    S_frozen is by ``Foresight``, u ≥ 0 the lead of S over it in log per step, learned from readings. To be read is
    approach  log S_frozen + u Δt ≥ 1.5 steps' growth: just past the crossing. Where that is in doubt by more than 4
              steps' growth, with 0.0004 of doubt per step, by so much earlier: the reading then leaves less
    episode   from S > 1 on, nothing until v̂ has been refilled, S_frozen < 0.97; then S_frozen ≥ 0.93, rising: an
              episode leaves S_frozen up to 7 % off. If it does not rise within 60 steps, then
    """

    def __init__(self) -> None:
        self.last_step = 0
        self.may_have_crossed = False
        self.next_look: int | None = None
        self._last_ratio: float | None = None
        self._frozen_ratio: float | None = None
        self._has_fallen = False
        self._lowest = math.inf
        self._looked_at = 0
        self._lead = 0.0

    @property
    def is_known(self) -> bool:
        """Whether the last reading had an S."""
        return self._last_ratio is not None

    @property
    def is_above(self) -> bool:
        """Whether S was above the edge when last read, and has not been seen to fall."""
        return self._last_ratio is not None and self._last_ratio > EDGE and not self._has_fallen

    @property
    def is_near(self) -> bool:
        """Whether S was within reach of the edge when last read."""
        return self._last_ratio is not None and self._last_ratio >= NEAR_EDGE

    def is_close(self, step: int) -> bool:
        """Whether S was at the edge a moment ago."""
        return self._last_ratio is not None and self._last_ratio >= CLOSE and step - self.last_step <= CLOSE_STEPS

    @property
    def is_after_episode(self) -> bool:
        """Whether S has fallen back from above the edge since it was last read: the top direction may be another."""
        return self._has_fallen

    def observe(self, step: int, ratio: float | None, foreseen: float | None) -> None:
        """Take note of the S that was read, and of what it was foreseen to be."""
        self._learn_lead(step, ratio, foreseen)
        self.last_step = self._looked_at = step
        self._last_ratio = self._frozen_ratio = ratio
        self.may_have_crossed = self._has_fallen = False
        self._lowest = math.inf
        self.next_look = None
        if ratio is not None and ratio > 0:
            self.next_look = step + (FALLING_LOOK if self.is_above else 1)

    def look(self, step: int, ratio: float | None, growth: float) -> None:
        """Take note of S_frozen, and of how fast v̂ alone may let it grow, d log S / dt at most."""
        before, since = self._frozen_ratio, self._looked_at
        self._frozen_ratio, self._looked_at = ratio, step
        if ratio is None or ratio <= 0:
            self.next_look = None
            return
        is_falling = self.is_above or (self._has_fallen and ratio < RISEN * self._lowest)
        if is_falling:
            self._has_fallen = ratio < FALLEN
            self._lowest = min(self._lowest, ratio)
            self.may_have_crossed = step - self.last_step >= LONGEST_EPISODE
            self.next_look = step + (REFILLING_LOOK if self._has_fallen else FALLING_LOOK)
            return
        pace = math.log(ratio / before) / (step - since) if before and before > 0 and step > since else 0.0
        rate = max(growth, pace)
        highest, wanted = math.log(ratio), self._wanted(step, pace if pace > 0 else growth)
        if not self._has_fallen:
            highest += self._lead * (step - self.last_step)
            rate += self._lead
        self.may_have_crossed = highest >= wanted
        wait = (wanted - highest) / rate if rate > 0 else LONGEST_LOOK
        self.next_look = step + max(SHORTEST_LOOK, min(LONGEST_LOOK, int(wait)))

    def _wanted(self, step: int, pace: float) -> float:
        """The log S_frozen at which to read: past the edge, or before it as far as S_frozen is in doubt."""
        if self._has_fallen:
            return math.log(AFTER_EPISODE)
        doubt = DOUBT * (step - self.last_step)
        return -doubt if doubt > DOUBTED_STEPS * pace else PAST_EDGE * pace

    def _learn_lead(self, step: int, ratio: float | None, foreseen: float | None) -> None:
        """How fast S ran ahead of S_frozen since the last reading; an episode in between tells nothing of that."""
        n_steps = step - self.last_step
        if n_steps <= 0 or self.is_above or self._has_fallen:
            return
        if ratio is None or foreseen is None or not (ratio > 0 and foreseen > 0):
            return
        lead = math.log(ratio / foreseen) / max(n_steps, TELLING_STEPS)
        self._lead += LEARNING_RATE * (min(max(lead, 0.0), LARGEST_LEAD) - self._lead)
