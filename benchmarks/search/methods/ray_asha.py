"""Ray Tune's ASHA on the loss: forty random settings that compete for the full horizon."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from typing import Any

import numpy as np

from benchmarks.search.confirmation import Found, confirm
from benchmarks.search.tasks import BETA2, FULL_STEPS, LR, TASKS, TRIALS, Task
from benchmarks.search.training import Setting, train

REPORT_EVERY, GRACE, REDUCTION = 50, 100, 3


def search(task: Task, seed: int) -> Found:
    """Those that got furthest go to the proof, the best of them first."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AIR_NEW_OUTPUT": "0", "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1"}
    import ray
    from ray import tune

    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="error")
    try:
        scheduler = tune.schedulers.ASHAScheduler(
            time_attr="steps", max_t=FULL_STEPS, grace_period=GRACE, reduction_factor=REDUCTION
        )
        space = {
            "task": task.name,
            "seed": seed,
            "lr": tune.loguniform(*LR),
            "one_minus_beta2": tune.loguniform(1.0 - BETA2[1], 1.0 - BETA2[0]),
        }
        sampler = tune.search.BasicVariantGenerator(random_state=seed, max_concurrent=1)
        config = tune.TuneConfig(
            metric="loss", mode="min", scheduler=scheduler, num_samples=TRIALS, search_alg=sampler, reuse_actors=True
        )
        with tempfile.TemporaryDirectory() as folder:
            run_config = tune.RunConfig(storage_path=folder, verbose=0)
            results = tune.Tuner(_trainable, param_space=space, tune_config=config, run_config=run_config).fit()
            ends: list[dict[str, Any]] = [result.metrics for result in results if result.metrics]
    finally:
        ray.shutdown()
    order = sorted(ends, key=lambda end: (-end["steps"], end["loss"]))
    settings = (Setting(end["config"]["lr"], 1.0 - end["config"]["one_minus_beta2"]) for end in order)
    return dataclasses.replace(confirm(task, settings, seed), n_steps_elsewhere=sum(end["steps"] for end in ends))


def _trainable(config: dict[str, Any]) -> None:
    from ray import tune

    def report(losses: list[float]) -> None:
        if len(losses) % REPORT_EVERY == 0:
            loss = float(np.nan_to_num(np.median(losses[-REPORT_EVERY:]), nan=1e12, posinf=1e12))
            tune.report({"loss": loss, "steps": len(losses)})

    setting = Setting(config["lr"], 1.0 - config["one_minus_beta2"])
    run = train(TASKS[config["task"]], setting, config["seed"], FULL_STEPS, stops_on_spike=False, report=report)
    if len(run.losses) % REPORT_EVERY:
        tune.report({"loss": 1e12, "steps": len(run.losses)})
