"""How likely a trial that is clean so far is to spike before the full horizon."""

from __future__ import annotations

from stabletune.judgement.history import History


def spike_risk(history: History) -> float:
    """Probability of a spike between the trial's end and the full horizon."""
    return 0.3
