"""Everything known of a trial so far: what stoppers, forecasts and the constraint for the sampler judge."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from stabletune.judgement.spikes import SpikeDetector
from stabletune.records import Measurement, TrialSpec

TRAILING_WINDOW = 20


@dataclasses.dataclass
class History:
    """A trial's losses, measurements and spikes, in the order in which they came.

    ``add`` is the only way in, so that ``spikes`` has always judged exactly ``losses``.
    """

    spec: TrialSpec
    spikes: SpikeDetector
    losses: list[float] = dataclasses.field(default_factory=list)
    measurements: list[Measurement] = dataclasses.field(default_factory=list)

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return len(self.losses)

    def add(self, loss: float) -> None:
        """Take the loss of one optimizer step; raises ``LossFloorError`` for a loss at or below the floor."""
        self.losses.append(loss)
        self.spikes.update(loss)

    def trailing_loss(self) -> float:
        """Median of the last 20 losses."""
        return trailing_median(self.losses, self.step)

    def last(self, name: str) -> float | None:
        """The newest reading of one signal."""
        return next((v for m in reversed(self.measurements) if (v := getattr(m, name)) is not None), None)


def trailing_median(losses: Sequence[float], step: int) -> float:
    """Median of the 20 losses that end at ``step`` (counted from 1)."""
    return float(np.median(np.asarray(losses[max(0, step - TRAILING_WINDOW) : step], dtype=np.float64)))
