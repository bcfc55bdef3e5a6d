"""Ends workers that cannot end themselves: with a process that is stopped, or its machine, its watchdog stops too."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import ray
from ray.tune import Callback

from stabletune.records import SECONDS_WITHOUT_A_STEP, TrialSpec
from stabletune.study.executors import last_words

SECONDS_BETWEEN_LOOKS = 5.0
SECONDS_MORE = 60.0  # it counts from when the worker is there, the watchdog from when torch is


def end_worker(trial_id: str, worker: Any, words: str) -> None:
    """Kill a worker; its trial's record will have these words."""
    last_words.leave(trial_id, words)
    ray.kill(worker)


class SilentWorkers(Callback):
    """A callback of Tune that kills the worker of a trial a minute after its own watchdog should have ended it.

    Only time in which this process itself was awake counts: what was said while it slept has not been heard yet.

    Args:
        end: kills a worker of a trial, for a reason.
    """

    def __init__(self, end: Callable[[str, Any, str], None] = end_worker) -> None:
        self._end = end
        self._looked_at = time.monotonic()
        self._silent: dict[str, tuple[Any, float]] = {}

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Add to the silence of every worker, and end those whose is too long."""
        passed = time.monotonic() - self._looked_at
        if passed < SECONDS_BETWEEN_LOOKS:
            return
        self._looked_at += passed
        workers = {trial.trial_id: (trial, trial.temporary_state.ray_actor) for trial in trials}
        known, self._silent = self._silent, {}
        for name, (trial, worker) in workers.items():
            if worker is None:
                continue
            before, seconds = known.get(name, (None, 0.0))
            seconds = seconds + min(passed, 2.0 * SECONDS_BETWEEN_LOOKS) if before == worker else 0.0
            self._silent[name] = (worker, seconds)
            if seconds > _limit(trial.config["spec"]):
                self._end(
                    name, worker, f"no answer for {seconds:.0f} s, as from a process that is stopped; it was killed."
                )

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:
        """A sign of life, which counts where the run as a whole has no limit."""
        if trial.config["spec"].seconds is None:
            self._silent.pop(trial.trial_id, None)


def _limit(spec: TrialSpec) -> float:
    return (SECONDS_WITHOUT_A_STEP if spec.seconds is None else spec.seconds) + SECONDS_MORE
