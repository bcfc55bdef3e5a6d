"""When a training that is watched deserves attention: four levels, with hysteresis, so that none flaps.

A ``History`` flows in, step by step; an ``Alert`` flows out where the level changes. No clock, no sink: old runs can be
replayed through it.
"""

from __future__ import annotations

import math

from stabletune.judgement.diagnosis import diagnose_step
from stabletune.judgement.history import History
from stabletune.judgement.rules import ImminentSpike, imminent_spike
from stabletune.judgement.spikes import REFRACTORY
from stabletune.records import Alert, Diagnosis, Level

APPROACHES_FROM, APPROACHES_UNTIL = 0.9, 0.75
UNSTABLE_FOR = 100
FAR = 2.0


class AlertLevels:
    """The level of one training.

    ===========  ====================================================================  ==============================
    level        begins when                                                           ends when
    ===========  ====================================================================  ==============================
    approaching  S is read at 0.9 or more, at the ε floor left out if that was read    S is read below 0.75
    unstable     an oscillation grows that is predicted to spike (``imminent_spike``)  100 steps passed without another
    spiked       a spike begins, or the loss is not finite                             50 steps after the last in it,
                                                                                       once the loss is back at the
                                                                                       median before, or finite
    calm         none of these
    ===========  ====================================================================  ==============================

    The highest that holds counts. S above 2 alone, where what it is without the ε floor was not read, changes nothing:
    coordinates whose v̂ is 0, as behind a ReLU that has just woken, read in the hundreds there and do no harm.
    Approaching is no harm: many healthy runs rest at S = 1. What is predicted nearly
    always spikes within 25 steps if it does at all (docs/prediction.md: nine steps ahead in the median).
    """

    def __init__(self) -> None:
        self.level: Level = "calm"
        self._is_near = False
        self._n_episodes = 0
        self._found: ImminentSpike | None = None

    def update(self, history: History) -> Alert | None:
        """Judge the newest step of ``history``, once for each.

        The alert if the level changes, a spike begins, or the loss stops being finite.
        """
        ratio = _told_ratio(history)
        if ratio is not None:
            self._is_near = ratio >= (APPROACHES_UNTIL if self._is_near else APPROACHES_FROM)
        self._found = imminent_spike(history) or self._found
        spikes, previous = history.spikes, self.level
        is_broken = not math.isfinite(history.losses[-1])
        is_break_new = is_broken and all(map(math.isfinite, history.losses[-REFRACTORY:-1]))
        is_spike_new = len(spikes.episodes) > self._n_episodes
        self._n_episodes = len(spikes.episodes)
        self.level = self._judged(history)
        if self.level == previous and not (is_spike_new or is_break_new):
            return None
        diagnosis = None
        if self.level == "spiked":
            diagnosis = diagnose_step(history, spikes.episodes[-1].start if is_spike_new else history.step)
        ratio, step = _last_ratio(history)
        return Alert(
            step=history.step,
            level=self.level,
            previous=previous,
            message=self._message(history, diagnosis),
            loss=history.losses[-1],
            sharpness_ratio=ratio,
            sharpness_ratio_step=step,
            v_hat_staleness=history.last("v_hat_staleness"),
            diagnosis=diagnosis,
        )

    def _judged(self, history: History) -> Level:
        spikes = history.spikes
        if spikes.episodes and not (spikes.has_recovered and history.step > spikes.episodes[-1].end + REFRACTORY):
            return "spiked"
        if spikes.diverged and not all(math.isfinite(loss) for loss in history.losses[-REFRACTORY:]):
            return "spiked"
        if self._found is not None and history.step <= self._found.step + UNSTABLE_FOR:
            return "unstable"
        return "approaching" if self._is_near else "calm"

    def _message(self, history: History, diagnosis: Diagnosis | None) -> str:
        where, (ratio, step) = f"step {history.step}", _last_ratio(history)
        read = _at(ratio) + ("" if step in (None, history.step) else f" at step {step}")
        if self.level == "calm":
            return f"{where}: calm again, {read}."
        if self.level == "approaching":
            return f"{where}: at the edge, which is at 1, {read}; many healthy runs rest there."
        if self.level == "unstable":
            assert self._found is not None
            return (
                f"{where}: an oscillation grows, {_at(self._found.sharpness_ratio)}, and is predicted to raise the "
                f"loss to {self._found.predicted_ratio:.3g} times its running median."
            )
        spikes = history.spikes
        if not math.isfinite(history.losses[-1]):
            what = f"{where}: the loss is {history.losses[-1]}"
        elif not spikes.episodes:
            what = f"{where}: the loss was not finite less than {REFRACTORY} steps ago"
        else:
            episode = spikes.episodes[-1]
            what = f"step {episode.start}: the loss spiked to {episode.worst_ratio:.3g} times its running median"
        return (
            f"{what}." if diagnosis is None else f"{what}; {diagnosis.cause}: {diagnosis.evidence} {diagnosis.remedy}"
        )


def _told_ratio(history: History) -> float | None:
    """S read at the newest step, as far as it tells of an oscillation: without the ε floor, or near the edge."""
    newest = history.measurements[-1] if history.measurements else None
    if newest is None or newest.step != history.step or newest.sharpness_ratio is None:
        return None
    masked = newest.sharpness_ratio_masked
    if masked is None:
        return newest.sharpness_ratio if newest.sharpness_ratio <= FAR else None
    return min(newest.sharpness_ratio, masked)


def _last_ratio(history: History) -> tuple[float | None, int | None]:
    """The newest S, and the step at which it was read."""
    read = (m for m in reversed(history.measurements) if m.sharpness_ratio is not None)
    newest = next(read, None)
    return (None, None) if newest is None else (newest.sharpness_ratio, newest.step)


def _at(ratio: float | None) -> str:
    return "sharpness_ratio not read" if ratio is None else f"sharpness_ratio {ratio:.3g}"
