"""What a loss spike is: the one definition used by stoppers, proofs, reports and the user's own monitoring.

Losses flow in, one by one (``SpikeDetector``) or as a whole run (``find_spikes``); spike scores and episodes flow out.
"""

from __future__ import annotations

import bisect
import dataclasses
import math
from collections import deque

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stabletune.errors import LossFloorError
from stabletune.records import Episode

WINDOW = 100
INITIAL_STEPS = 10
FLOOR_SHARE = 1e-4
REFRACTORY = 50
SEVERE_RATIO = 3.0
SMALLEST, LARGEST = 1e-150, 1e150  # ratios, squares and means of any two between are float64 too
_MAD_TO_SIGMA = 1.4826
_RULES = ((math.log(1.25), 8.0), (math.log(SEVERE_RATIO), 3.0))


class SpikeDetector:
    r"""Score each loss against the steps before it; a score above 1 is a step in a spike.

    With :math:`B = \max(\mathrm{median}_{100}(L), f)`, :math:`f = 10^{-4}` of the initial loss (median of the first
    ten), :math:`d = \log(L / B)` and :math:`\sigma = 1.4826\, \mathrm{median}_{100} |\Delta \log \max(L, f)|`, a step
    is in a spike if (d > log 1.25 and d > 8 sigma) or (d > log 3 and d > 3 sigma). The score is the larger of the two
    ``min(d / level, d / (k sigma))``. The scale comes from one-step differences because recurrent spikes inflate any
    spread of levels. Windows hold the steps before the one judged; the first ten steps are never judged.

    Args:
        loss_floor: the loss's lower bound; losses enter as ``loss - loss_floor``.

    Raises:
        ValueError: ``loss_floor`` is no finite number.

    Cost: O(log 100) comparisons a step, about 5 microseconds.
    Source: OLMo 2 (arXiv:2501.00656, section 3.2) for the windowed form; scale and levels are stabletune's own.
    """

    def __init__(self, loss_floor: float = 0.0) -> None:
        if isinstance(loss_floor, bool) or not isinstance(loss_floor, (int, float)) or not math.isfinite(loss_floor):
            raise ValueError(
                f"loss_floor: must be a finite number, but got {loss_floor!r}. Give the loss's lower bound, mostly 0."
            )
        self.loss_floor = loss_floor
        self.step = 0
        self.score = 0.0
        self.worst_score = 0.0
        self.diverged = False
        self.episodes: list[Episode] = []
        self._losses = _SortedWindow(WINDOW)
        self._changes = _SortedWindow(WINDOW)
        self._initial: list[float] = []
        self._floor = 0.0
        self._previous_log: float | None = None
        self._reference: float | None = None

    @property
    def has_recovered(self) -> bool:
        """Whether the loss has come back to the median that preceded the last spike (True if there was none)."""
        return self._reference is None

    def begin_after(self, n_steps: int) -> None:
        """Count on from a run's first ``n_steps``, whose losses are not known; before the first ``update``."""
        self.step = n_steps

    def update(self, loss: float) -> float:
        """Take the next loss and return its score.

        Raises:
            LossFloorError: the loss is at or below ``loss_floor``.
        """
        self.step += 1
        if not math.isfinite(loss):
            self.diverged = True
            self.score = self.worst_score = math.inf
            return self.score
        above = loss - self.loss_floor
        if above <= 0.0:
            raise LossFloorError(
                f"step {self.step}: the loss must stay above loss_floor = {self.loss_floor:g}, but got {loss!r}. "
                "Set loss_floor below the smallest loss the task can reach."
            )
        level = min(max(above, SMALLEST), LARGEST)
        if self._is_young:
            self._initial.append(level)
            self._floor = FLOOR_SHARE * float(np.median(self._initial))
            self.score = 0.0
        else:
            self._judge(level)
        self._remember(level)
        return self.score

    @property
    def baseline(self) -> float:
        """B, above the floor, that the next loss will be judged by; nan in the first ten steps."""
        return math.nan if self._is_young else max(self._losses.median(), self._floor)

    def score_of(self, level: float) -> float:
        """Return the score that a next loss of ``level`` above the floor would have; nan in the first ten steps."""
        if self._is_young:
            return math.nan
        deviation = math.log(level / self.baseline)
        sigma = _MAD_TO_SIGMA * self._changes.median()
        return max(
            min(deviation / limit, deviation / (k * sigma) if sigma > 0.0 else math.copysign(math.inf, deviation))
            for limit, k in _RULES
        )

    @property
    def _is_young(self) -> bool:
        return len(self._initial) < INITIAL_STEPS

    def _judge(self, level: float) -> None:
        baseline = self.baseline
        self.score = self.score_of(level)
        self.worst_score = max(self.worst_score, self.score)
        if self.score > 1.0:
            self._enter_spike(baseline)
        if self._reference is not None:
            self._extend_episode(level)

    def _enter_spike(self, baseline: float) -> None:
        if not self.episodes or self.step - self.episodes[-1].end > REFRACTORY:
            self._reference = baseline
            self.episodes.append(Episode(start=self.step, end=self.step, worst_ratio=1.0, severity=0.0, steps_lost=0))
        elif self._reference is None:
            self._reference = baseline
        self.episodes[-1] = dataclasses.replace(self.episodes[-1], end=self.step)

    def _extend_episode(self, level: float) -> None:
        assert self._reference is not None
        ratio = level / self._reference
        if ratio <= 1.0:
            self._reference = None
            return
        episode = self.episodes[-1]
        self.episodes[-1] = dataclasses.replace(
            episode,
            worst_ratio=max(episode.worst_ratio, ratio),
            severity=episode.severity + math.log(ratio),
            steps_lost=episode.steps_lost + 1,
        )

    def _remember(self, level: float) -> None:
        log_level = math.log(max(level, self._floor))
        if self._previous_log is not None:
            self._changes.push(abs(log_level - self._previous_log))
        self._previous_log = log_level
        self._losses.push(level)


def find_spikes(losses: ArrayLike, loss_floor: float = 0.0) -> SpikeDetector:
    """Judge a whole run: the detector after its last loss, with ``episodes``, ``worst_score`` and ``diverged``.

    Args:
        losses: one loss per optimizer step, shape (steps,).
        loss_floor: the loss's lower bound.

    Raises:
        LossFloorError: a finite loss is at or below ``loss_floor``.
    """
    detector = SpikeDetector(loss_floor)
    for loss in np.asarray(losses, dtype=np.float64).tolist():
        detector.update(loss)
    return detector


def olmo_spike_score(losses: ArrayLike, window: int = 1000, n_sigma: float = 7.0) -> float:
    """Share of steps at least ``n_sigma`` rolling standard deviations above the rolling mean.

    Published beside stabletune's own count for comparison; recurrent spikes inflate sigma and hide from it.

    Source: arXiv:2501.00656, section 3.2.
    """
    values: NDArray[np.float64] = np.asarray(losses, dtype=np.float64)
    if values.size <= INITIAL_STEPS:
        return 0.0
    spiky = 0
    for step in range(INITIAL_STEPS, values.size):
        past = values[max(0, step - window) : step]
        spiky += bool(values[step] - past.mean() >= n_sigma * past.std() > 0.0)
    return spiky / values.size


class _SortedWindow:
    """The last ``size`` values with their median at hand."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._arrived: deque[float] = deque()
        self._sorted: list[float] = []

    def push(self, value: float) -> None:
        if len(self._arrived) == self._size:
            del self._sorted[bisect.bisect_left(self._sorted, self._arrived.popleft())]
        self._arrived.append(value)
        bisect.insort(self._sorted, value)

    def median(self) -> float:
        middle, is_odd = divmod(len(self._sorted), 2)
        if is_odd:
            return self._sorted[middle]
        return 0.5 * (self._sorted[middle - 1] + self._sorted[middle])
