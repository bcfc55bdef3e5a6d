"""The one place where the study reaches the worker: called in the process in which the trial runs."""

from __future__ import annotations

from collections.abc import Callable

from stabletune.records import Progress, TrialResult, TrialSpec


def run_here(spec: TrialSpec, report: Callable[[Progress], bool]) -> TrialResult:
    """Run one trial in this process; torch is imported now, not before."""
    from stabletune.trial.worker import run_trial

    return run_trial(spec, report)
