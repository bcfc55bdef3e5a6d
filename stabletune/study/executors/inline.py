"""Runs trials one after the other in this process: the same path as Ray, for tests and for a debugger."""

from __future__ import annotations

from pathlib import Path

from stabletune.config import Resources
from stabletune.records import Progress, TrialSpec
from stabletune.study.executors.process_border import run_here
from stabletune.study.source import TrialSource


class InlineExecutor:
    """No processes, no concurrency, no limits."""

    def run(self, source: TrialSource) -> None:
        """Run until the source is over or has nothing left."""
        while not source.is_over:
            spec = source.next_spec()
            if spec is None:
                return
            self._run_one(spec, source)

    def _run_one(self, spec: TrialSpec, source: TrialSource) -> None:
        is_wanted = True

        def report(progress: Progress) -> bool:
            nonlocal is_wanted
            is_wanted = source.on_progress(progress)
            return is_wanted

        result = run_here(spec, report)
        if is_wanted:
            source.on_result(result)
        else:
            source.on_abandoned(spec, result.steps)


def build(resources: Resources, workload: Path | None = None) -> InlineExecutor:
    """The executor; it needs nothing of the resources, and the workload where it lies."""
    return InlineExecutor()
