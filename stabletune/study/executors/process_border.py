"""The one place where the study reaches the worker: called in the process in which the trial runs."""

from __future__ import annotations

from collections.abc import Callable

from stabletune.records import Progress, TrialResult, TrialSpec
from stabletune.study.executors.forked_children import withhold_connections


def run_watched(
    spec: TrialSpec,
    report: Callable[[Progress], bool],
    leave: Callable[[str], None],
    *,
    is_in_doubt: bool = False,
) -> TrialResult:
    """Run one trial in a process of its own, which ends itself if the trial hangs or outgrows it.

    Args:
        spec: what to run.
        report: takes the progress; False ends the trial.
        leave: takes the reason before the process ends.
        is_in_doubt: whether what earlier trials left in the process may be why this one cannot run here. Then it ends
            without a reason where the trial fails before its first step, where memory is short, where too many files
            are open, and where an earlier one spoiled the process.
    """
    from stabletune.trial.process_state import is_spoiled
    from stabletune.trial.watchdog import Watchdog, end_process, has_room

    withhold_connections()
    if (is_spoiled() or not has_room()) and is_in_doubt:
        end_process()
    with Watchdog(spec, leave, is_in_doubt=is_in_doubt) as watchdog:

        def heard(progress: Progress) -> bool:
            watchdog.hear(progress.step)
            return report(progress)

        result = run_here(spec, heard)
    if result.status == "failed" and not result.steps and is_in_doubt:
        end_process()
    return result


def run_here(spec: TrialSpec, report: Callable[[Progress], bool]) -> TrialResult:
    """Run one trial in this process; torch is imported now, not before."""
    from stabletune.trial.worker import run_trial

    return run_trial(spec, report)
