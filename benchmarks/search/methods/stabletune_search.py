"""stabletune with its default budget, in this process, so that its steps can be counted as everybody else's."""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path

import yaml

from benchmarks.search.confirmation import Found
from benchmarks.search.tasks import BASELINE, BETA2, CONFIRM_SEEDS, FULL_STEPS, LR, TRIAL_STEPS, TRIALS, Task
from benchmarks.search.training import Setting
from stabletune import search as search_with_stabletune


def search(task: Task, seed: int) -> Found:
    """The command ``stabletune search``, with the inline executor."""
    config = {
        "version": 1,
        "name": task.name,
        "workload": task.workload,
        "workload_args": dict(task.arguments),
        "seed": seed,
        "search_space": {
            "lr": {"low": LR[0], "high": LR[1], "scale": "log"},
            "beta2": {"low": BETA2[0], "high": BETA2[1], "scale": "log_one_minus"},
        },
        "baseline": BASELINE,
        "budget": {
            "trials": TRIALS,
            "trial_steps": TRIAL_STEPS,
            "full_steps": FULL_STEPS,
            "confirm_seeds": CONFIRM_SEEDS,
        },
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        result = search_with_stabletune(path, output=Path(folder) / "run", executor="inline")
        with (result.folder / "confirmations.csv").open(encoding="utf-8") as rows:
            sent = {row["candidate"] for row in csv.DictReader(rows) if row["purpose"] == "confirmation"}
    if result.recommendation is None:
        return Found(None, len(sent))
    settings = result.recommendation.settings
    return Found(Setting(settings["lr"], settings["beta2"]), len(sent))
