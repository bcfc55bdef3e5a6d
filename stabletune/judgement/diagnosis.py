"""Why the loss spiked: for each spike, and for a divergence, the first cause whose evidence is there.

A pure function of a trial's history, so that it can be replayed; the causes are the files of ``judgement.causes``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from stabletune.judgement.causes import load_causes
from stabletune.judgement.history import History
from stabletune.judgement.onset import Onset, loss_ratio, times
from stabletune.judgement.spikes import REFRACTORY
from stabletune.records import OWN_LOOP, UNEXPLAINED, Diagnosis, Episode


def diagnose(history: History) -> tuple[Diagnosis, ...]:
    """Return one diagnosis for each episode, and one for a divergence that no episode led to."""
    spikes = history.spikes
    found = [diagnose_step(history, episode.start) for episode in spikes.episodes]
    if spikes.diverged and not _leads_to(spikes.episodes, history.step):
        found.append(diagnose_step(history, history.step))
    return tuple(found)


def diagnose_step(history: History, step: int) -> Diagnosis:
    """Return why the loss stood out, or stopped being finite, at ``step``, its first."""
    onset = Onset(history, step)
    for cause in load_causes():
        finding = cause.find(onset)
        if finding is not None:
            return Diagnosis(step=step, cause=cause.NAME, evidence=finding.evidence, remedy=finding.remedy)
    return Diagnosis(step=step, cause=UNEXPLAINED, evidence=_what_is_missing(onset), remedy=_closer_look(onset))


def _leads_to(episodes: Sequence[Episode], step: int) -> bool:
    """Whether a spike was still going on when the loss stopped being finite."""
    return bool(episodes) and step - episodes[-1].end <= REFRACTORY


def _what_is_missing(onset: Onset) -> str:
    if onset.is_sudden:
        return f"the rise came in one step ({min(1.0, onset.sudden_share):.0%} of it){_what_was_compared(onset)}."
    readings = onset.readings(onset.step - 100, onset.step)
    if not readings:
        return f"the rise grew over several steps, but S was not read in the 100 before step {onset.step}."
    highest = max(m.sharpness_ratio or 0.0 for m in readings)
    stale = f", v_hat at most {onset.stalest[1]:.3g} times its gradients" if onset.stalest else ""
    return f"the rise grew over several steps, with sharpness_ratio at most {highest:.3g} before{stale}."


def _what_was_compared(onset: Onset) -> str:
    """What a look at the onset found of the causes that come in one step."""
    look, _ = onset.inspections()
    if look is None:
        return "; its batch was not looked at again"
    found = []
    if look.others and all(other.loss == look.suspect.loss for other in look.others):
        found.append(
            "the batches kept of it and the steps before have one and the same loss now (one batch for all, or a "
            "closure that does not hold its own)"
        )
    elif look.others and math.isfinite(look.suspect.loss):
        ratio = times(loss_ratio(look))
        found.append(
            f"its batch's loss {ratio:.3g} times those of the {len(look.others)} before under the same parameters"
        )
    if look.precise_loss is not None:
        found.append(f"{look.precise_loss + onset.floor:.4g} in float64 for {look.suspect.loss + onset.floor:.4g}")
    return "".join(f", {what}" for what in found)


def _closer_look(onset: Onset) -> str:
    first = max(1, onset.step - 100)
    if onset.history.spec.every == 1:
        return (
            f"Every step was measured already: look at the data of step {onset.step} and at what the loop does there."
        )
    if onset.history.spec.workload.function == OWN_LOOP:
        return f"Measure every step from {first} on: StabilityMonitor(..., every=1), or more overhead."
    measured = f"Run `stabletune trial` with --set 'signals={{every: 1}}' up to step {onset.step}"
    return f"{measured}; look at the steps from {first} on."
