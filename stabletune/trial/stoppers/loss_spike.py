"""Stop a trial whose loss has spiked, once the height of the spike is known."""

from __future__ import annotations

from stabletune.judgement.history import History
from stabletune.trial.verdict import Verdict

RANK = 1
STEPS_TO_SEE_THE_PEAK = 25


def verdict(history: History) -> Verdict | None:
    """Stopped when a spike is over, or 25 steps after it began: its size grades the constraint for the sampler."""
    if not history.spec.stops_on_spike or not history.spikes.episodes:
        return None
    spike = history.spikes.episodes[0]
    if not history.spikes.has_recovered and history.step - spike.start < STEPS_TO_SEE_THE_PEAK:
        return None
    return Verdict(
        "stopped",
        f"step {spike.start}: the loss spiked to {spike.worst_ratio:.3g} times its running median, "
        f"spike score {history.spikes.worst_score:.3g} against the limit 1.",
    )
