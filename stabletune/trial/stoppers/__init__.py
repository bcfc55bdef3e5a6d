"""Stoppers: each judges the whole history of a trial and may end it with a sentence.

A stopper is one file with one function ``verdict(history) -> Verdict | None``; it keeps no state of its own.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

from stabletune.judgement.history import History
from stabletune.trial.stoppers.verdict import Verdict

ORDER: tuple[str, ...] = ("non_finite_loss", "loss_spike", "stale_preconditioner", "slow_progress")


def load_stoppers() -> list[Callable[[History], Verdict | None]]:
    """The stoppers in the order in which they are asked."""
    return [importlib.import_module(f"{__name__}.{name}").verdict for name in ORDER]
