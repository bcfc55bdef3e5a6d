"""Runs trials on Ray Tune with reused actors: an embedded local Ray by default, or the cluster that is named.

The Optuna study behind the source is the single truth; Ray's own folder is scratch and removed afterwards.
"""

from __future__ import annotations

import itertools
import math
import os
from pathlib import Path
from typing import Any

from stabletune.config import Resources
from stabletune.records import Progress, TrialSpec
from stabletune.study.executors.lost_head import watched_cluster
from stabletune.study.executors.process_border import run_watched
from stabletune.study.executors.ray_session import (
    GIB,
    Session,
    alive_nodes,
    count_slots,
    ray_session,
    refuse_if_lacking,
    relocated,
)
from stabletune.study.failures import ended, worker_died
from stabletune.study.source import TrialSource

RETRIES_OF_A_DEAD_WORKER = 2  # the first may go to a node that has just died too
_uses = itertools.count()  # of this worker


class RayTuneExecutor:
    """Runs trials as Ray Tune trials with ``cpus_per_trial`` and ``gpus_per_trial`` each."""

    def __init__(self, resources: Resources, workload: Path | None) -> None:
        self._resources, self._workload = resources, workload

    def run(self, source: TrialSource) -> None:
        """Run until the source is over.

        Raises:
            ResourceError: there is no such cluster, or it lacks what one trial asks for.
            ClusterError: it was lost on the way.
        """
        with ray_session(self._resources, self._workload) as session, watched_cluster():
            self._tune(source, session)

    def _tune(self, source: TrialSource, session: Session) -> None:
        from ray import tune

        from stabletune.study.executors.ray_bridge import SourceSearcher, SourceStopper
        from stabletune.study.executors.silent_workers import SilentWorkers

        # more must not be asked for at once, lest the sampler propose before it is told
        n_slots = count_slots(self._resources, [node["Resources"] for node in alive_nodes()])
        resources: dict[str, float] = {"cpu": self._resources.cpus_per_trial}
        if self._resources.gpus_per_trial:
            resources["gpu"] = self._resources.gpus_per_trial
        if self._resources.memory_gib_per_trial:
            resources["memory"] = self._resources.memory_gib_per_trial * GIB

        def is_cluster_alive() -> bool:
            return bool(alive_nodes())

        searcher = SourceSearcher(
            source, worker_died, sent_folder=session.sent_folder, is_cluster_alive=is_cluster_alive
        )
        tune.run(
            tune.with_resources(_run_in_actor, resources),
            name="search",
            storage_path=str(session.scratch),
            search_alg=searcher,
            stop=SourceStopper(searcher, is_cluster_alive=is_cluster_alive),
            num_samples=-1,
            max_concurrent_trials=n_slots,
            reuse_actors=True,
            max_failures=RETRIES_OF_A_DEAD_WORKER,
            raise_on_failed_trial=False,
            callbacks=[SilentWorkers()],
            trial_dirname_creator=lambda trial: f"trial_{trial.trial_id}",
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=0,
            _remote=False,  # through a ray:// client too the study, with its open files, stays in this process
        )


def build(resources: Resources, workload: Path | None = None) -> RayTuneExecutor:
    """The executor for these resources; what this machine alone can tell is checked before any process starts."""
    if resources.address == "local":
        refuse_if_lacking(resources, {"CPU": float(os.cpu_count() or 1), "GPU": math.inf})
    return RayTuneExecutor(resources, workload)


def _run_in_actor(config: dict[str, Any]) -> None:
    """Runs inside the Ray actor: progress and the result go back through ``tune.report``."""
    from ray import tune

    from stabletune.study.executors import last_words

    spec: TrialSpec = relocated(config["spec"], config["sent_folder"])
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
    is_last = last_words.begin(trial_id) > RETRIES_OF_A_DEAD_WORKER  # which may get a used worker too
    is_in_doubt = next(_uses) > 0 and not is_last
    result = run_watched(
        spec,
        report,
        lambda sentence: last_words.leave(trial_id, sentence),
        is_in_doubt=is_in_doubt,
    )
    if not is_wanted:
        raise SystemExit  # Tune stopped the trial by raising it; a thread that returns instead blocks the actor
    tune.report({"result": result})
