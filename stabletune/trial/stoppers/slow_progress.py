"""Stop a stable trial that is clearly slower than those before it."""

from __future__ import annotations

from stabletune.judgement.history import History
from stabletune.trial.verdict import Verdict

RANK = 3


def verdict(history: History) -> Verdict | None:
    """Pruned when the trailing loss at the step of ``slow_limit`` is above its loss."""
    if history.spec.slow_limit is None:
        return None
    step, limit = history.spec.slow_limit
    if history.step != step or history.trailing_loss() <= limit:
        return None
    return Verdict(
        "pruned",
        f"step {step}: the loss {history.trailing_loss():.4g} is above {limit:.4g}, "
        "which three quarters of the finished trials had reached by then.",
    )
