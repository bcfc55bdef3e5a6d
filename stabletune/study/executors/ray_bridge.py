"""Ray Tune's searcher and stopper over a ``TrialSource``; imported only once Ray is wanted."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from ray.tune import Stopper
from ray.tune.search import Searcher

from stabletune.errors import ClusterError
from stabletune.records import Progress, TrialResult, TrialSpec
from stabletune.study.source import TrialSource

SECONDS_BETWEEN_QUESTIONS = 10.0
_FINISHED = cast("dict[str, Any]", Searcher.FINISHED)


class SourceSearcher(Searcher):
    """Suggests what the source hands out, and passes every report and result back to it.

    Args:
        source: of the trials.
        worker_died: the record of a trial whose worker died, from its spec and its steps.
        sent_folder: where the workload's files were sent from.
        is_cluster_alive: asked where a worker died; with all nodes dead it is not the trial's doing.
    """

    def __init__(
        self,
        source: TrialSource,
        worker_died: Callable[[TrialSpec, int], TrialResult],
        *,
        sent_folder: Path | None = None,
        is_cluster_alive: Callable[[], bool] = lambda: True,
    ) -> None:
        super().__init__(metric=None, mode=None)
        self.source = source
        self._worker_died, self._is_cluster_alive = worker_died, is_cluster_alive
        self._sent_folder = sent_folder
        self._specs: dict[str, TrialSpec] = {}
        self._steps: dict[str, int] = {}
        self._abandoned: set[str] = set()

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """The next spec; None to be asked again later."""
        if self.source.is_over:
            return _FINISHED
        spec = self.source.next_spec()
        if spec is None:
            return None if self._specs else _FINISHED
        self._specs[trial_id] = spec
        return {"spec": spec, "sent_folder": self._sent_folder}

    def wants_more_of(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Pass a report on to the source; whether the trial goes on."""
        if self.source.is_over and "result" not in result:
            self._abandoned.add(trial_id)
            return False
        progress: Progress | None = result.get("progress")
        if progress is None or trial_id not in self._specs:
            return True
        self._steps[trial_id] = progress.step
        if self.source.on_progress(progress):
            return True
        self._abandoned.add(trial_id)
        return False

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Hand the source a result, a dead worker, or a trial that was ended early."""
        spec, steps = self._specs.pop(trial_id), self._steps.pop(trial_id, 0)
        outcome: TrialResult | None = (result or {}).get("result")
        if outcome is not None and not error:
            self.source.on_result(dataclasses.replace(outcome, spec=spec))  # a worker's names its own files
        elif trial_id in self._abandoned or not self._is_cluster_alive():
            self.source.on_abandoned(spec, steps)
        else:
            self.source.on_result(self._worker_died(spec, steps))

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the Optuna study is the truth."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: ``--resume`` tops the study up."""

    def __getstate__(self) -> dict[str, Any]:
        """Ray pickles its configuration; the source, with its open files, stays on the driver."""
        return {}


class SourceStopper(Stopper):
    """Ends the trials that the source no longer wants, and everything where no node of the cluster lives any more.

    Args:
        searcher: whose source decides.
        is_cluster_alive: asked every ten seconds; trials would wait for a dead one for ever.
    """

    def __init__(self, searcher: SourceSearcher, is_cluster_alive: Callable[[], bool] = lambda: True) -> None:
        self._searcher = searcher
        self._is_cluster_alive = is_cluster_alive
        self._asked_at = time.monotonic()

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether this trial ends now."""
        return not self._searcher.wants_more_of(trial_id, result)

    def stop_all(self) -> bool:
        """Whether everything ends now.

        Raises:
            ClusterError: no node lives any more.
        """
        now = time.monotonic()
        if now - self._asked_at > SECONDS_BETWEEN_QUESTIONS:
            self._asked_at = now
            if not self._is_cluster_alive():
                raise ClusterError(
                    "resources.address: a node of the cluster must live, but none does any more. "
                    "Start it again, and go on with --resume."
                )
        return self._searcher.source.is_over

    def __getstate__(self) -> dict[str, Any]:
        """See ``SourceSearcher``."""
        return {}
