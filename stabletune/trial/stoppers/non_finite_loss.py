"""Stop at the first loss that is not finite."""

from __future__ import annotations

from stabletune.judgement.history import History
from stabletune.trial.verdict import Verdict

RANK = 0


def verdict(history: History) -> Verdict | None:
    """Diverged as soon as the loss is nan or infinite."""
    if not history.spikes.diverged:
        return None
    return Verdict("diverged", f"step {history.step}: the loss is {history.losses[-1]}; recorded as diverged.")
