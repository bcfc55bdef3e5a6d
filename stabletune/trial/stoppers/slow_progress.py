"""Stop a stable trial that is clearly slower than those before it that are as likely to stay stable."""

from __future__ import annotations

from stabletune.judgement.history import History
from stabletune.trial.verdict import Verdict

RANK = 3


def verdict(history: History) -> Verdict | None:
    """Pruned when the trailing loss at a step of ``pace_limits`` is above the loss given there."""
    limit = dict(history.spec.pace_limits).get(history.step)
    if limit is None or not history.trailing_loss() > limit:
        return None
    return Verdict(
        "pruned",
        f"step {history.step}: the loss {history.trailing_loss():.4g} is above {limit:.4g}, "
        "which the fastest fifth of the trials likely to stay free of spikes had reached by then.",
    )
