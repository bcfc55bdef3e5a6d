"""Who watches a search: told of every event, deciding nothing."""

from __future__ import annotations

from stabletune.records import Progress, TrialResult, TrialSpec
from stabletune.study.proof.outcome import StudyResult


class Listener:
    """Hears of a search's events and does nothing; a subclass overrides what it cares about."""

    def on_note(self, sentence: str) -> None:
        """Something worth saying before it begins."""

    def on_search(self, n_trials: int, n_finished: int) -> None:
        """The search begins, or goes on after ``n_finished`` trials."""

    def on_proof(self, n_candidates: int, n_runs_expected: int) -> None:
        """The proof begins, with so many trials that looked clean; it may take more runs than expected."""

    def on_comparison(self, n_runs: int) -> None:
        """A comparison of so many runs begins."""

    def on_start(self, spec: TrialSpec) -> None:
        """A trial or proof run was handed out."""

    def on_progress(self, progress: Progress) -> None:
        """A running trial reports."""

    def on_result(self, result: TrialResult) -> None:
        """A trial or proof run has finished."""

    def on_abandoned(self, spec: TrialSpec, steps: int) -> None:
        """A run was ended because it is no longer wanted."""

    def on_end(self, result: StudyResult) -> None:
        """The study is over."""
