"""Runs of the corpus replayed step by step: what a rule that sees the history so far would have said at each step."""

from __future__ import annotations

import bisect
import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.corpus.traces import Trace
from stabletune.judgement.history import History
from stabletune.judgement.spikes import SpikeDetector

AHEAD = 50
FIRST_STEP = 60

Score = Callable[[History], float]


@dataclasses.dataclass(frozen=True)
class Replay:
    """A run that was clean at step 60, with each rule's score at the steps from there on, before any spike."""

    trace: Trace
    scores: dict[str, NDArray[np.float64]]

    def alarms(self, name: str, level: float) -> NDArray[np.int64]:
        """The steps at which a rule's score is above its level."""
        return np.flatnonzero(self.scores[name] > level) + FIRST_STEP

    def is_foreseen(self, name: str, level: float) -> bool:
        """Whether a spiking run has an alarm in the 50 steps before its first spike."""
        assert self.trace.onset is not None
        return bool((self.alarms(name, level) >= self.trace.onset - AHEAD).any())

    def lead(self, name: str, level: float) -> int | None:
        """Steps from the first alarm among those 50 to the spike."""
        assert self.trace.onset is not None
        late = self.alarms(name, level)
        late = late[late >= self.trace.onset - AHEAD]
        return int(self.trace.onset - late[0]) if late.size else None


def replay(trace: Trace, rules: dict[str, Score]) -> Replay | None:
    """Ask each rule at each step before the first spike; None for a run whose spike came in the first 60 steps."""
    last = trace.losses.size if trace.onset is None else trace.onset - 1
    if last < FIRST_STEP:
        return None
    scores = {name: np.full(last - FIRST_STEP + 1, -math.inf) for name in rules}
    for history in histories(trace, last):
        if history.step >= FIRST_STEP:
            for name, rule in rules.items():
                scores[name][history.step - FIRST_STEP] = rule(history)
    return Replay(trace, scores)


def histories(trace: Trace, last: int) -> Iterator[History]:
    """Yield the one history of a run as it was after each step up to ``last``."""
    history = History(trace.spec, SpikeDetector(trace.loss_floor))
    steps = [measurement.step for measurement in trace.measurements]
    for step in range(1, last + 1):
        history.add(float(trace.losses[step - 1]), gradient_norm=float(trace.gradient_norms[step - 1]))
        first, end = bisect.bisect_left(steps, step), bisect.bisect_right(steps, step)
        history.measurements.extend(trace.measurements[first:end])
        yield history


def history_at(trace: Trace, step: int) -> History:
    """The history of a run as it was after a step."""
    *_, history = histories(trace, step)
    return history


def level_for(replays: Sequence[Replay], name: str, share: float) -> float:
    """The level that at most this share of the healthy runs ever exceeds."""
    highest = sorted(float(r.scores[name].max()) for r in replays if not r.trace.is_spiky)
    n_above = math.floor(share * len(highest))
    return highest[len(highest) - 1 - n_above]
