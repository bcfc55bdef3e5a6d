"""Stop a trial that is about to spike: S above the edge, sustained, with a v_hat that no longer follows."""

from __future__ import annotations

from stabletune.judgement.history import History
from stabletune.judgement.rules import EDGE, STALE, sustained_instability
from stabletune.trial.verdict import Verdict

RANK = 2


def verdict(history: History) -> Verdict | None:
    """Stopped on the finding of ``judgement.rules.sustained_instability`` at the newest reading."""
    if not history.spec.predicts or not history.measurements or history.measurements[-1].step != history.step:
        return None
    finding = sustained_instability(history.measurements, float(history.spec.params["beta2"]))
    if finding is None:
        return None
    return Verdict(
        "stopped",
        f"step {finding.last_step}: sharpness_ratio stayed at or above {finding.lowest_sharpness_ratio:.3f} "
        f"(limit {EDGE:g}) since step {finding.first_step}, with v_hat_staleness at or above "
        f"{finding.lowest_staleness:.3g} (limit {STALE:g}); a spike was imminent.",
    )
