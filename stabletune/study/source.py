"""What an executor and a study say to each other."""

from __future__ import annotations

from typing import Protocol

from stabletune.records import Progress, TrialResult, TrialSpec


class TrialSource(Protocol):
    """Where trials come from and results go; an executor calls it from one thread only."""

    @property
    def is_over(self) -> bool:
        """Nothing more will be handed out, and what still runs is no longer wanted."""
        ...

    def next_spec(self) -> TrialSpec | None:
        """The next trial to run; None when there is none before a running one has ended."""
        ...

    def on_progress(self, progress: Progress) -> bool:
        """Take a running trial's progress; False ends it."""
        ...

    def on_result(self, result: TrialResult) -> None:
        """Take a finished trial."""
        ...

    def on_abandoned(self, spec: TrialSpec, steps: int) -> None:
        """Take note of a trial that was ended by ``on_progress`` after ``steps`` steps."""
        ...
