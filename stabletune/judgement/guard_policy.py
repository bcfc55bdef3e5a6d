"""When a guard brakes and how hard: each step's gradient norm and loss flow in, the change to be made flows out.

Pure but for its own plain state: the same losses and norms give the same decisions, so that a run can be replayed.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import sys
from collections import deque
from collections.abc import Mapping
from typing import Any

from stabletune.errors import LossFloorError
from stabletune.judgement.spikes import INITIAL_STEPS, WINDOW, SpikeDetector

STANDS_OUT = 0.3
FACTOR = 0.5
HELD_FOR = 20
GIVEN_BACK = 1.01
USUAL_OVER, FEWEST = 50, 20
OUTLIER, SUDDEN_OVER, LIMITED_TO, MOST_LEAPS = 5.0, 5, 3.0, 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class GuardDecision:
    """What a guard changed, or would change, from ``step`` on, and why.

    ``lr_scale`` multiplies every lr, ``beta2_cap`` caps every beta2 (None: no cap), ``gradient_scale`` multiplies the
    gradients of this step alone. ``score`` and ``gradient_norm`` are what it was decided by, ``sharpness_ratio`` the
    newest S that was read, at ``sharpness_ratio_step``.
    """

    step: int
    lr_scale: float
    beta2_cap: float | None
    gradient_scale: float
    reason: str
    score: float
    gradient_norm: float
    sharpness_ratio: float | None = None
    sharpness_ratio_step: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class GuardBounds:
    """How far a guard may go.

    Args:
        lr_scale: the smallest factor on lr, 0 < lr_scale <= 1; 1 leaves lr alone.
        beta2: what beta2 may be lowered to, 0 <= beta2 < 1; None leaves it alone.
        limits_gradients: whether a gradient that leaps may be scaled down.
    """

    lr_scale: float = 0.1
    beta2: float | None = 0.9
    limits_gradients: bool = True

    def __post_init__(self) -> None:
        if not (_is_number(self.lr_scale) and 0.0 < self.lr_scale <= 1.0):
            raise ValueError(f"lr_scale: 0 < lr_scale <= 1 must hold, but got {self.lr_scale!r}. 1 leaves lr alone.")
        if self.beta2 is not None and not (_is_number(self.beta2) and 0.0 <= self.beta2 < 1.0):
            raise ValueError(f"beta2: 0 <= beta2 < 1 must hold, but got {self.beta2!r}. None leaves beta2 alone.")


class GuardPolicy:
    r"""Brakes while the loss begins to stand out, and gives back what it took.

    With s the spike score of the newest loss (1 is a spike), k the brake, and max(k, ``lr_scale``) the factor on lr:

    - s > 0.3: :math:`k \leftarrow \max(k / 2, k_{min})`, at each such step, with the lesser of 1/2 and ``lr_scale``
      as :math:`k_{min}`; beta2 is capped as long as k < 1;
    - 20 steps after the last of these: :math:`k \leftarrow \min(1.01\,k, 1)` a step;
    - a gradient of five times the median of the last fifty norms, and of five times the largest of the last five, is a
      leap and no oscillation, which grows over steps: it is scaled down to three times that median; after five in
      a row it is the norm that has changed, and is left alone.

    A spike is an oscillation that grows until v̂ stops it: a smaller lr puts S below 1 at once, so that it decays, and a
    smaller beta2 lets v̂ follow. What it costs and saves, beside other thresholds: docs/guard.md.

    Args:
        bounds: how far it may go.
        loss_floor: the loss's lower bound.

    Raises:
        ValueError: ``bounds`` are no ``GuardBounds``, or ``loss_floor`` is no finite number.
    """

    def __init__(self, bounds: GuardBounds | None = None, *, loss_floor: float = 0.0) -> None:
        if bounds is not None and not isinstance(bounds, GuardBounds):
            raise ValueError(f"bounds: must be None or GuardBounds(...), but got {bounds!r}. Give GuardBounds(...).")
        self.bounds = bounds or GuardBounds()
        self._brake = 1.0
        self._loss_floor = loss_floor
        self._spikes = SpikeDetector(loss_floor)
        self._first: list[float] = []
        self._recent: deque[float] = deque(maxlen=WINDOW + 2)
        self._norms: deque[float] = deque(maxlen=USUAL_OVER)
        self._n_leaps = 0
        self._score = 0.0
        self._n_calm = 0
        self._n_steps = 0

    @property
    def lr_scale(self) -> float:
        """The factor on lr now."""
        return max(self._brake, self.bounds.lr_scale)

    @property
    def beta2_cap(self) -> float | None:
        """What beta2 is capped at now."""
        return self.bounds.beta2 if self._brake < 1.0 else None

    def begin_after(self, n_steps: int) -> None:
        """Count on from a training's first ``n_steps``, of which nothing is known; later it does nothing."""
        if self._n_steps == 0:
            self._n_steps = n_steps

    def before_step(self, gradient_norm: float, left_norm: float | None = None) -> GuardDecision | None:
        """Decide on the step to come by the norm of its gradient and by the losses so far; None: nothing is new.

        The factor on lr that is given back a little at each step is no decision; where that begins and ends is.

        Args:
            gradient_norm: √Σ g² of the raw gradient, by which leaps are told.
            left_norm: that of the gradient which clipping left to the step, if there was any.
        """
        scale, reason = self._limit(gradient_norm, gradient_norm if left_norm is None else left_norm)
        braked = self._brake_or_give_back()
        if not reason and not braked:
            return None
        return GuardDecision(
            step=self._n_steps + 1,
            lr_scale=self.lr_scale,
            beta2_cap=self.beta2_cap,
            gradient_scale=scale,
            reason=" ".join(sentence for sentence in (braked, reason) if sentence),
            score=self._score,
            gradient_norm=gradient_norm,
        )

    def after_step(self, loss: float) -> None:
        """Take the loss of the step.

        Raises:
            LossFloorError: it is at or below ``loss_floor``.
        """
        self._n_steps += 1
        self._score = self._spikes.update(loss)
        if math.isfinite(loss):
            if len(self._first) < INITIAL_STEPS:
                self._first.append(loss)
            self._recent.append(loss)

    def state_dict(self) -> dict[str, Any]:
        """Plain data from which ``load_state_dict`` makes a policy that decides the same."""
        return {
            "brake": self._brake,
            "n_calm": self._n_calm,
            "n_steps": self._n_steps,
            "score": self._score,
            "first_losses": list(self._first),
            "recent_losses": list(self._recent),
            "norms": list(self._norms),
            "n_leaps": self._n_leaps,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state_dict``, within these bounds; a state that is refused changes nothing.

        Raises:
            ValueError: it is no such state.
        """
        try:
            brake, score = float(state["brake"]), float(state["score"])
            n_calm, n_steps, n_leaps = int(state["n_calm"]), int(state["n_steps"]), int(state["n_leaps"])
            first, recent, norms = (
                [float(value) for value in state[name]] for name in ("first_losses", "recent_losses", "norms")
            )
            if not 0.0 < brake <= 1.0 or math.isnan(score) or min(n_calm, n_steps, n_leaps) < 0:
                raise ValueError(f"brake {brake}, score {score}, {n_calm}, {n_steps}, {n_leaps} steps")
            spikes = SpikeDetector(self._loss_floor)
            is_young = len(recent) < WINDOW + 2
            for loss in [*([] if is_young else first), *recent]:
                spikes.update(loss)
        except (KeyError, TypeError, ValueError, LossFloorError) as error:
            raise ValueError(
                f"state: must be what state_dict() gave, but got {type(error).__name__}: {error}. "
                "Leave it out to begin anew."
            ) from error
        self._brake, self._score = max(brake, self._strongest), score
        self._n_calm, self._n_steps, self._n_leaps = n_calm, n_steps, n_leaps
        self._spikes, self._norms = spikes, deque(norms, maxlen=USUAL_OVER)
        self._first, self._recent = first, deque(recent, maxlen=WINDOW + 2)

    @property
    def _strongest(self) -> float:
        """The least the brake may be; 1 where there is nothing that it may do."""
        if self.bounds.lr_scale == 1.0 and self.bounds.beta2 is None:
            return 1.0
        return min(self.bounds.lr_scale, FACTOR)

    def _brake_or_give_back(self) -> str:
        before = self._brake
        if self._score > STANDS_OUT:
            self._n_calm = 0
            self._brake = max(FACTOR * before, self._strongest)
            if self._brake == before:
                return ""
            cap = "" if self.beta2_cap is None else f", cap beta2 at {self.beta2_cap:g}"
            done = f"scale lr by {self.lr_scale:.3g}{cap}" if self.lr_scale < 1.0 else cap.removeprefix(", ")
            return f"The loss stands out with score {self._score:.3g} (limit {STANDS_OUT}): {done}."
        self._n_calm += 1
        if before == 1.0 or self._n_calm <= HELD_FOR:
            return ""
        self._brake = min(GIVEN_BACK * before, 1.0)
        if self._brake == 1.0:
            return "Calm: lr and beta2 may have their own values."
        return f"Calm for {HELD_FOR} steps: give the brake back, 1 % a step." if self._n_calm == HELD_FOR + 1 else ""

    def _limit(self, norm: float, left: float) -> tuple[float, str]:
        """The factor on the gradient, and why; its norm joins the usual ones unless it leaps."""
        usual = statistics.median(self._norms) if len(self._norms) >= FEWEST else math.inf
        lately = max(list(self._norms)[-SUDDEN_OVER:], default=math.inf)
        is_large = math.isfinite(norm) and usual > 0.0 and norm > OUTLIER * max(usual, lately)
        # beside what is as good as zero anything would leap, and be scaled to nothing
        is_leap = is_large and usual / norm >= sys.float_info.min and self._n_leaps < MOST_LEAPS
        if math.isfinite(norm):
            self._norms.append(usual if is_leap else norm)
            self._n_leaps = self._n_leaps + 1 if is_leap else 0
        if not is_leap or not self.bounds.limits_gradients:
            return 1.0, ""
        limit = LIMITED_TO * usual
        if not limit < left:  # it was clipped to less already
            return 1.0, ""
        return (
            limit / left,
            f"The gradient leaps to {norm / usual:.3g} times its median: scale it to {LIMITED_TO:g} times.",
        )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
