"""The one place where the study reaches the worker: called in the process in which the trial runs."""

from __future__ import annotations

from collections.abc import Callable

from stabletune.records import Progress, TrialResult, TrialSpec


def run_watched(spec: TrialSpec, report: Callable[[Progress], bool], leave: Callable[[str], None]) -> TrialResult:
    """Run one trial in a process of its own, which ends itself if the trial hangs or outgrows it.

    ``leave`` takes the reason first.
    """
    from stabletune.trial.watchdog import Watchdog

    with Watchdog(spec, leave) as watchdog:

        def heard(progress: Progress) -> bool:
            watchdog.hear(progress.step)
            return report(progress)

        return run_here(spec, heard)


def run_here(spec: TrialSpec, report: Callable[[Progress], bool]) -> TrialResult:
    """Run one trial in this process; torch is imported now, not before."""
    from stabletune.trial.worker import run_trial

    return run_trial(spec, report)
