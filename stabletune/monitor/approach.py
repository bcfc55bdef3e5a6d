"""How S moves towards the edge between readings, as far as the optimizer's own state tells.

In: readings, and looks at what S would be with the Hessian of the last one. Out: whether S may have passed 1, and when
to look again.
"""

from __future__ import annotations

import math

from stabletune.judgement.rules import EDGE, STALE, SUSTAINED_READINGS, SUSTAINED_STEPS
from stabletune.records import Measurement

NEAR_EDGE = 0.7
CLOSE = 0.93  # where full-batch training rests; from here a forecast is good to a few steps
CLOSE_STEPS = 30
PAST_EDGE = 2.0  # steps beyond the forecast, so that the reading does not come just before the crossing
FALLEN = 0.97  # v̂ has been refilled: the episode is over
LONGEST_EPISODE = 60
FALLING_LOOK = 10
LONGEST_LOOK = 50
LEARNING_RATE = 0.3
LARGEST_LEAD = 0.02


class Approach:
    """The last S, its frozen-curvature value since, and how fast S has lately run ahead of that.

    S may have passed 1 once  log S_frozen + u Δt ≥ 0,  with S_frozen by ``FrozenCurvature`` and u the lead of S over
    it, in log per step; within 30 steps of S ≥ 0.93, two steps later than that. From above 1, an episode is over once
    S_frozen has fallen below 0.97, or after 60 steps.
    """

    def __init__(self) -> None:
        self.last_step = 0
        self.may_have_crossed = False
        self.next_look: int | None = None
        self._last_ratio: float | None = None
        self._frozen_ratio: float | None = None
        self._looked_at = 0
        self._lead = 0.0
        self._above_since: int | None = None
        self._n_above = 0

    @property
    def is_known(self) -> bool:
        """Whether the last reading had an S."""
        return self._last_ratio is not None

    @property
    def is_above(self) -> bool:
        """Whether S was above the edge when last read."""
        return self._last_ratio is not None and self._last_ratio > EDGE

    @property
    def is_near(self) -> bool:
        """Whether S was within reach of the edge when last read."""
        return self._last_ratio is not None and self._last_ratio >= NEAR_EDGE

    def is_close(self, step: int) -> bool:
        """Whether S was at the edge a moment ago."""
        return self._last_ratio is not None and self._last_ratio >= CLOSE and step - self.last_step <= CLOSE_STEPS

    def lacks_a_verdict(self) -> bool:
        """Whether S > 1 with a stale v̂ was read, but not yet often and long enough for ``sustained_instability``."""
        if self._above_since is None:
            return False
        return self._n_above < SUSTAINED_READINGS or self.last_step - self._above_since < SUSTAINED_STEPS

    def observe(self, measurement: Measurement) -> None:
        """Take note of a reading."""
        step, ratio, staleness = measurement.step, measurement.sharpness_ratio, measurement.v_hat_staleness
        self._learn_lead(step, ratio)
        if ratio is not None and ratio > EDGE and staleness is not None and staleness >= STALE:
            self._above_since = step if self._above_since is None else self._above_since
            self._n_above += 1
        else:
            self._above_since, self._n_above = None, 0
        self.last_step = self._looked_at = step
        self._last_ratio = self._frozen_ratio = ratio
        self.may_have_crossed = False
        self.next_look = step + 1 if ratio is not None and ratio > 0 else None

    def look(self, step: int, ratio: float | None, growth: float) -> None:
        """Take note of S_frozen, and of how fast v̂ alone may let it grow, d log S / dt at most."""
        before, since = self._frozen_ratio, self._looked_at
        self._frozen_ratio, self._looked_at = ratio, step
        if ratio is None or ratio <= 0:
            self.next_look = None
        elif self.is_above:
            self.may_have_crossed = ratio < FALLEN or step - self.last_step >= LONGEST_EPISODE
            self.next_look = step + FALLING_LOOK
        else:
            pace = math.log(ratio / before) / (step - since) if before and before > 0 and step > since else 0.0
            highest = math.log(ratio) + self._lead * (step - self.last_step)
            margin = PAST_EDGE * (max(0.0, pace) + self._lead) if self.is_close(step) else 0.0
            self.may_have_crossed = highest >= margin
            rate = max(growth, pace) + self._lead
            wait = -highest / rate if rate > 0 else LONGEST_LOOK
            self.next_look = step + max(1, min(LONGEST_LOOK, int(wait)))

    def _learn_lead(self, step: int, ratio: float | None) -> None:
        """How fast S ran ahead of S_frozen on the way to the edge, where both are known at the same step."""
        if self._looked_at != step or step <= self.last_step or self.is_above or not ratio or ratio <= 0:
            return
        if not self._frozen_ratio or not 0 < self._frozen_ratio < EDGE:
            return
        lead = math.log(ratio / self._frozen_ratio) / (step - self.last_step)
        self._lead += LEARNING_RATE * (min(max(lead, 0.0), LARGEST_LEAD) - self._lead)
