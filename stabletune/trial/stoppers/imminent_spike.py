"""Stop a trial that is about to spike: an oscillation grows at the edge, and will be a spike when v̂ stops it."""

from __future__ import annotations

from stabletune.judgement.history import History
from stabletune.judgement.rules import AT_EDGE, imminent_spike
from stabletune.trial.verdict import Verdict

RANK = 2


def verdict(history: History) -> Verdict | None:
    """Stopped on the finding of ``judgement.rules.imminent_spike``, unless a spike that stops the trial is there."""
    is_there = history.spec.stops_on_spike and bool(history.spikes.episodes)
    if not history.spec.predicts or is_there:
        return None
    finding = imminent_spike(history)
    if finding is None:
        return None
    return Verdict(
        "stopped",
        f"step {finding.step}: an oscillation grows at sharpness_ratio {finding.sharpness_ratio:.3f} (limit "
        f"{AT_EDGE:g}) and is predicted to raise the loss to {finding.predicted_ratio:.3g} times its running median, "
        f"spike score {finding.predicted_score:.3g} against the limit 1.",
    )
