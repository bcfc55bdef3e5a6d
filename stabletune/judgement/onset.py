"""How a spike began: what rose, in how many steps, and what v̂ and the learning rate did before.

In: a trial's history and the first step of a spike. Out: the numbers that the causes judge by.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stabletune.judgement.history import History
from stabletune.judgement.rules import beta2_at
from stabletune.judgement.spikes import LARGEST, SMALLEST, WINDOW
from stabletune.records import BatchLook, Inspection, Measurement

BEFORE = 60
GAP = 10
LATE = 3
FAR = 100
LARGEST_LOG = 700.0  # its exponential is a float64
CHANGED_SHARE, SAME_SHARE = 0.5, 0.25
TOLD_BY_GRADIENT = 0.5  # of log rise: less is noise
SUDDEN_SHARE = 0.6
UNDONE_SHARE = 0.8
CHANGE_V = ("second_moment_clip", "second_moment_reset", "amsgrad")
WITH_LOSS = 0.1  # of log rise of the loss: an oscillation has its square


class Climb(NamedTuple):
    """What moved log S between two steps: the Hessian, and the rest, which is v̂ and the learning rate."""

    by_hessian: float
    by_rest: float
    since: int
    until: int


@dataclasses.dataclass(frozen=True)
class Onset:
    """The beginning of one spike, or of a divergence, at ``step`` (counted from 1)."""

    history: History
    step: int

    @property
    def index(self) -> int:
        """Where the arrays hold the step."""
        return self.history.index(self.step)

    @property
    def floor(self) -> float:
        """The loss's lower bound, which is to be added to a loss that is shown."""
        return self.history.spikes.loss_floor

    @functools.cached_property
    def losses(self) -> NDArray[np.float64]:
        """Losses above the floor."""
        return np.asarray(self.history.losses, dtype=np.float64) - self.floor

    @functools.cached_property
    def gradient_norms(self) -> NDArray[np.float64]:
        """√Σ g² of every step known; nan where unknown."""
        return np.array(self.history.gradient_norms, dtype=np.float64)

    @functools.cached_property
    def usual_loss(self) -> float:
        """Median of those of the hundred losses before that are finite; nan where none is."""
        before = self.losses[max(0, self.index - WINDOW) : max(1, self.index)]
        known = before[np.isfinite(before)]
        return float(np.median(known)) if known.size else math.nan

    @property
    def loss(self) -> float:
        """The loss at the onset."""
        return float(self.losses[self.index])

    @property
    def is_finite(self) -> bool:
        """Whether the loss is."""
        return math.isfinite(self.loss)

    @functools.cached_property
    def jump(self) -> float:
        """log(loss / usual loss); infinite for a loss that is not finite, or where there is none before."""
        if not (self.is_finite and self.loss > 0 and self.usual_loss > 0):
            return math.inf
        return math.log(self.loss) - math.log(self.usual_loss)

    @functools.cached_property
    def sudden_share(self) -> float:
        """How much of the rise came in one step: near 1 for a blow, small for an instability that grew.

        max over the last steps of log(G_k / G_{k-1}), as a share of log(max G / median G), with the gradient norm G,
        which shows an oscillation long before the loss does; the loss itself where G is unknown, hardly rose, or did
        not rise with the loss in the last steps.
        """
        late = self._late(self.gradient_norms)
        is_told = late.size > 1 and math.log(late.max()) - math.log(late[0]) >= WITH_LOSS * self.jump
        found = self._share(self.gradient_norms) if is_told or not self.is_finite else None
        if found is None:
            found = self._share(self.losses, least=0.0)
        return 1.0 if found is None else found

    @property
    def is_sudden(self) -> bool:
        """Whether one step made most of the rise, or it was no rise of the gradient and is not found again."""
        return self.sudden_share >= SUDDEN_SHARE or self.is_undone

    @functools.cached_property
    def is_undone(self) -> bool:
        """Whether the same batch, computed anew one step later, has next to nothing of a jump without a gradient.

        With one, it may be an oscillation: then the loss falls at every second step.
        """
        look, _ = self.inspections()
        if look is None or look.suspect.step != self.step or not self.is_finite:
            return False
        if not (look.suspect.loss > 0 and look.suspect.loss_then > 0):
            return False
        norm, usual = self.gradient_norms[self.index], self._usual(self.gradient_norms)
        if not norm <= math.exp(TOLD_BY_GRADIENT) * usual:
            return False
        return math.log(look.suspect.loss_then) - math.log(look.suspect.loss) >= UNDONE_SHARE * self.jump

    def _share(self, values: NDArray[np.float64], least: float = TOLD_BY_GRADIENT) -> float | None:
        usual, late = self._usual(values), self._late(values)
        if math.isnan(usual) or late.size < 2:
            return None
        rise = math.log(late.max()) - math.log(usual)
        return float(np.diff(np.log(late)).max()) / rise if rise > least else None

    def _usual(self, values: NDArray[np.float64]) -> float:
        """The median of the 60 values that end ten steps before; nan where there is none."""
        end = self.index + 1 - GAP
        before = values[max(0, end - BEFORE) : max(0, end)]
        known = before[np.isfinite(before) & (before > 0)]
        return float(np.median(known)) if known.size else math.nan

    def _late(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        late = values[max(0, self.index - LATE - 1) : self.index + 1]
        return late[np.isfinite(late) & (late > 0)]

    @functools.cached_property
    def v_hat(self) -> NDArray[np.float64]:
        r"""Σ v̂ after every step, from the gradient norms alone: v_t = b2 v_{t-1} + (1-b2) G_t², over 1 - b2^t.

        G clipped to ``max_grad_norm``, b2 by ``beta2_exponent``. nan where unknown: everywhere if another mitigation
        changes what enters v, and without the second moments from before the first step known.
        """
        params, found = self.history.spec.params, np.full(self.gradient_norms.size, np.nan)
        if any(params.get(name) for name in CHANGE_V):
            return found
        limit = params.get("max_grad_norm") or math.inf
        moment, kept = 0.0, 1.0
        for index, norm in enumerate(self.gradient_norms.tolist()):
            if math.isfinite(norm):
                beta2 = beta2_at(self.history.n_before + index + 1, params)
                moment, kept = beta2 * moment + (1.0 - beta2) * min(norm, limit, LARGEST) ** 2, kept * beta2
            if kept < 1.0:
                found[index] = moment / (1.0 - kept)
        return found

    @functools.cached_property
    def stalest(self) -> tuple[int, float] | None:
        """The step before the onset at which v̂ had outlived its gradients most, and Σ v̂ / Σ g² there."""
        first, last = max(0, self.index - WINDOW), max(0, self.index + 1 - LATE)
        limit = self.history.spec.params.get("max_grad_norm") or math.inf
        entered = np.clip(self.gradient_norms[first:last], SMALLEST, min(limit, LARGEST))
        with np.errstate(over="ignore"):
            ratios = self.v_hat[first:last] / entered**2
        ratios = np.where(np.isfinite(ratios), ratios, 0.0)
        if not ratios.size or not ratios.any():
            return None
        # the median of three: one small gradient is no stale v̂
        padded = np.pad(ratios, 1)
        smooth = np.median(np.stack([padded[:-2], ratios, padded[2:]]), axis=0)
        best = int(smooth.argmax())
        return self.history.n_before + first + best + 1, float(smooth[best])

    def growth_by_v_hat(self, since: int, until: int) -> float | None:
        """Log S that v̂ alone brought between two steps: half of what log v̂ fell; None where unknown."""
        first, last = self.history.index(since), self.history.index(until)
        if not 0 <= first <= last < self.v_hat.size:
            return None
        then, now = self.v_hat[first], self.v_hat[last]
        is_known = 0.0 < then < math.inf and 0.0 < now < math.inf
        return 0.5 * (math.log(then) - math.log(now)) if is_known else None

    @functools.cached_property
    def climb(self) -> Climb | None:
        """What moved log S lately: the Hessian's part, the part of v̂ and the learning rate, and between which steps.

        Σ log(S_i / foreseen_i) and Σ log(foreseen_i / S_{i-1}) over the readings i of the last 60 steps, or the last
        reading alone. None where that is more than 100 steps younger than the one before: of no recent move it tells.
        """
        pairs = list(itertools.pairwise(self.readings(1, self.step)))
        recent = [(a, b) for a, b in pairs if a.step >= self.step - BEFORE] or pairs[-1:]
        told = [(a, b) for a, b in recent if _tells(a, b) and b.step >= self.step - WINDOW]
        if not told:
            return None
        hessian = sum(math.log(_ratio(b)) - math.log(_foreseen(b)) for _, b in told)
        other = sum(math.log(_foreseen(b)) - math.log(_ratio(a)) for a, b in told)
        return Climb(hessian, other, told[0][0].step, told[-1][1].step)

    def readings(self, first: int, last: int) -> list[Measurement]:
        """The measurements of S between two steps, both included."""
        return [m for m in self.history.measurements if m.sharpness_ratio is not None and first <= m.step <= last]

    @functools.cached_property
    def has_changed_for_good(self) -> bool:
        """Whether the suspect differs from the batches before it, but not from those after it.

        Then the loss function or its data changed, rather than the parameters or one batch.
        """
        look, again = self.inspections()
        if look is None or again is None:
            return False
        before, after = loss_ratio(look), loss_ratio(again)
        return before >= CHANGED_SHARE * self.jump and abs(after) < SAME_SHARE * self.jump

    def inspections(self) -> tuple[Inspection | None, Inspection | None]:
        """The look at the onset, and the one some steps later, with their losses above the floor."""
        near = [_above(self.floor, i) for i in self.history.inspections if self.step <= i.step <= self.step + WINDOW]
        first = next((i for i in near if i.step == self.step and not i.is_repeat), None)
        again = next((i for i in near if i.is_repeat and first and i.suspect.step == first.suspect.step), None)
        return first, again


def _above(floor: float, look: Inspection) -> Inspection:
    """The inspection with every loss less the floor."""

    def less(batch: BatchLook) -> BatchLook:
        return dataclasses.replace(batch, loss=batch.loss - floor, loss_then=batch.loss_then - floor)

    precise = None if look.precise_loss is None else look.precise_loss - floor
    others = tuple(less(other) for other in look.others)
    return dataclasses.replace(look, suspect=less(look.suspect), others=others, precise_loss=precise)


def loss_ratio(look: Inspection) -> float:
    """Log of the suspect's loss over the median of the others' under the same parameters; 0 where unknown."""
    others = [other.loss for other in look.others if math.isfinite(other.loss) and other.loss > 0]
    if not others or not (math.isfinite(look.suspect.loss) and look.suspect.loss > 0):
        return 0.0
    return math.log(look.suspect.loss) - math.log(float(np.median(others)))


def times(log_ratio: float) -> float:
    """The ratio of which this is the logarithm, at most 1e304."""
    return math.exp(min(log_ratio, LARGEST_LOG))


def _ratio(reading: Measurement) -> float:
    return reading.sharpness_ratio or 0.0


def _foreseen(reading: Measurement) -> float:
    return reading.foreseen_sharpness_ratio or 0.0


def _tells(before: Measurement, reading: Measurement) -> bool:
    """Whether two readings are near enough, and of positive curvature, to say what moved S between them."""
    is_near = reading.step - before.step <= FAR
    return is_near and all(0.0 < r < math.inf for r in (_ratio(before), _ratio(reading), _foreseen(reading)))
