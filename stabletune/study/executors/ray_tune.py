"""Runs trials on Ray Tune with reused actors: an embedded local Ray by default, or the cluster that is named.

The Optuna study behind the source is the single truth; Ray's own folder is scratch and removed afterwards.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

from stabletune.config import Resources
from stabletune.errors import ResourceError
from stabletune.records import Progress, TrialSpec
from stabletune.study.executors.process_border import run_watched
from stabletune.study.failures import ended, worker_died
from stabletune.study.source import TrialSource

RETRIES_OF_A_DEAD_WORKER = 1
GIB = 2.0**30
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "86400",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
}


class RayTuneExecutor:
    """Runs trials as Ray Tune trials with ``cpus_per_trial`` and ``gpus_per_trial`` each."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    def run(self, source: TrialSource) -> None:
        """Run until the source is over.

        Raises:
            ResourceError: the cluster lacks what one trial asks for.
        """
        with _ray_session(self._resources):
            n_slots = self._count_slots()
            scratch = tempfile.mkdtemp(prefix="stabletune-ray-")
            try:
                self._tune(source, scratch, n_slots)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)

    def _count_slots(self) -> int:
        """How many trials run at once; more must not be asked for, lest the sampler propose before it is told."""
        import ray

        available: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        _refuse_if_lacking(self._resources, available)
        slots = available["CPU"] / self._resources.cpus_per_trial
        if self._resources.gpus_per_trial:
            slots = min(slots, available["GPU"] / self._resources.gpus_per_trial)
        if self._resources.memory_gib_per_trial:
            slots = min(slots, available["memory"] / (self._resources.memory_gib_per_trial * GIB))
        return min(int(slots), self._resources.max_concurrent or int(slots))

    def _tune(self, source: TrialSource, scratch: str, n_slots: int) -> None:
        from ray import tune

        from stabletune.study.executors.ray_bridge import SourceSearcher, SourceStopper

        resources: dict[str, float] = {"cpu": self._resources.cpus_per_trial}
        if self._resources.gpus_per_trial:
            resources["gpu"] = self._resources.gpus_per_trial
        if self._resources.memory_gib_per_trial:
            resources["memory"] = self._resources.memory_gib_per_trial * GIB
        searcher = SourceSearcher(source, worker_died)
        tuner = tune.Tuner(
            tune.with_resources(_run_in_actor, resources),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                num_samples=-1,
                max_concurrent_trials=n_slots,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: f"trial_{trial.trial_id}",
            ),
            run_config=tune.RunConfig(
                name="search",
                storage_path=scratch,
                stop=SourceStopper(searcher),
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=RETRIES_OF_A_DEAD_WORKER),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        )
        tuner.fit()


def build(resources: Resources) -> RayTuneExecutor:
    """The executor for these resources; what this machine alone can tell is checked before any process starts."""
    if resources.address == "local":
        _refuse_if_lacking(resources, {"CPU": float(os.cpu_count() or 1), "GPU": math.inf})
    return RayTuneExecutor(resources)


def _refuse_if_lacking(resources: Resources, available: Mapping[str, float]) -> None:
    """A trial that asks for more than there is would wait for ever, without an error."""
    wanted = {
        "cpus_per_trial": (resources.cpus_per_trial, available.get("CPU", 0.0), "CPUs"),
        "gpus_per_trial": (resources.gpus_per_trial, available.get("GPU", 0.0), "GPUs"),
        "memory_gib_per_trial": (
            resources.memory_gib_per_trial or 0.0,
            available.get("memory", math.inf) / GIB,
            "GiB of memory",
        ),
    }
    for key, (amount, there, unit) in wanted.items():
        if amount > there:
            raise ResourceError(
                f"resources.{key}: must be at most the {there:.4g} {unit} there are, "
                f"but got {amount:g}. Ask for {there:.4g} or fewer, or name a cluster in resources.address."
            )


def _run_in_actor(config: dict[str, Any]) -> None:
    """Runs inside the Ray actor: progress and the result go back through ``tune.report``."""
    from ray import tune

    from stabletune.study.executors import last_words

    spec: TrialSpec = config["spec"]
    is_wanted = True

    def report(progress: Progress) -> bool:
        nonlocal is_wanted
        try:
            tune.report({"progress": progress})
        except SystemExit:
            is_wanted = False
        return is_wanted

    trial_id = tune.get_context().get_trial_id()
    words = last_words.left(trial_id)
    if words is not None:  # an earlier attempt ended its process; another would do the same
        tune.report({"result": ended(spec, words)})
        return
    result = run_watched(spec, report, lambda sentence: last_words.leave(trial_id, sentence))
    if not is_wanted:
        raise SystemExit  # Tune stopped the trial by raising it; a thread that returns instead blocks the actor
    tune.report({"result": result})


@contextlib.contextmanager
def _ray_session(resources: Resources) -> Iterator[None]:
    """A Ray connection for the time of one search; an embedded Ray is shut down with it."""
    os.environ.update({name: value for name, value in _ENVIRONMENT.items() if name not in os.environ})
    import ray

    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error", "configure_logging": True}
    if resources.address == "local":
        options |= {
            "address": "local",
            "include_dashboard": False,
            "object_store_memory": 256 * 1024**2,
        }
    else:
        options["address"] = resources.address
    ray.init(**options)
    try:
        yield
    finally:
        ray.shutdown()
