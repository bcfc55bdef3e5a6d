"""Everything known of a trial so far: what stoppers, forecasts and the constraint for the sampler judge."""

from __future__ import annotations

import dataclasses
import math
from array import array
from collections.abc import Sequence

import numpy as np

from stabletune.judgement.spikes import SpikeDetector
from stabletune.records import Inspection, Measurement, TrialSpec

TRAILING_WINDOW = 20


def _numbers() -> array[float]:
    return array("d")


@dataclasses.dataclass
class History:
    """A trial's losses, measurements and spikes, in the order in which they came.

    ``add`` is the only way in, so that ``spikes`` has always judged exactly ``losses``. Steps are those of the run,
    counted from 1, of which the first ``n_before`` are not in it. A step takes 24 bytes, 24 MB in a million, and a
    reading about 1 kB.
    """

    spec: TrialSpec
    spikes: SpikeDetector
    losses: array[float] = dataclasses.field(default_factory=_numbers)
    measurements: list[Measurement] = dataclasses.field(default_factory=list)
    gradient_norms: array[float] = dataclasses.field(default_factory=_numbers)
    learning_rates: array[float] = dataclasses.field(default_factory=_numbers)
    inspections: list[Inspection] = dataclasses.field(default_factory=list)
    n_before: int = 0

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return self.n_before + len(self.losses)

    def begin_after(self, n_steps: int) -> None:
        """Count on from a run's first ``n_steps``, of which nothing is known; before the first ``add``."""
        self.n_before = n_steps
        self.spikes.begin_after(n_steps)

    def index(self, step: int) -> int:
        """Where ``losses``, ``gradient_norms`` and ``learning_rates`` hold a step."""
        return step - 1 - self.n_before

    def add(self, loss: float, *, gradient_norm: float = math.nan, lr: float = math.nan) -> None:
        """Take the loss of one optimizer step; raises ``LossFloorError`` for a loss at or below the floor.

        ``gradient_norm`` is that of the gradient the step was taken with, ``lr`` the largest that the parameter groups
        hold when it is over, which after a schedule's own step is that of the next; nan where unknown.
        """
        self.losses.append(loss)
        self.gradient_norms.append(gradient_norm)
        self.learning_rates.append(lr)
        self.spikes.update(loss)

    def trailing_loss(self) -> float:
        """Median of the last 20 losses."""
        return trailing_median(self.losses, len(self.losses))

    def last(self, name: str) -> float | None:
        """The newest reading of one signal."""
        return next((v for m in reversed(self.measurements) if (v := getattr(m, name)) is not None), None)


def trailing_median(losses: Sequence[float], step: int) -> float:
    """Median of the 20 losses that end at ``step`` (counted from 1)."""
    return float(np.median(np.asarray(losses[max(0, step - TRAILING_WINDOW) : step], dtype=np.float64)))
