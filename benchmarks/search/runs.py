"""One search or oracle a job, kept as a file, so that an interrupted comparison goes on where it was."""

from __future__ import annotations

import concurrent.futures
import json
import multiprocessing
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.search.calibration import grid_record
from benchmarks.search.methods import load_method
from benchmarks.search.oracle import oracle
from benchmarks.search.tasks import FULL_STEPS, TASKS
from benchmarks.search.training import counted_steps, initial_loss, train

SEEDS_APART = 10_000
FRESH_SEEDS, FIRST_FRESH = 15, 500_000

Job = tuple[str, str, int]


def run_missing(jobs: Sequence[Job], kept: Path, *, n_jobs: int) -> list[dict[str, Any]]:
    """The record of every job; those that ``kept`` does not hold yet are made, in processes of one thread."""
    kept.mkdir(parents=True, exist_ok=True)
    paths = {job: kept / f"{'-'.join(map(str, job))}.json" for job in jobs}
    missing = [(job, path) for job, path in paths.items() if not path.exists()]
    started = time.perf_counter()
    spawning = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(n_jobs, mp_context=spawning) as pool:
        for n_done, line in enumerate(pool.map(_run_one, missing), start=1):
            print(f"{n_done}/{len(missing)} {time.perf_counter() - started:.0f} s {line}", flush=True)
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths.values()]


def _run_one(entry: tuple[Job, Path]) -> str:
    (name, method, seed), path = entry
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    started = time.perf_counter()
    record = {"task": name, "method": method, "seed": seed}
    if method == "oracle":
        record |= _oracle_record(name)
    elif method == "grid":
        record["cells"] = grid_record(TASKS[name])
    else:
        record |= _search_record(name, method, SEEDS_APART * (1 + seed))
    record["seconds"] = time.perf_counter() - started
    path.write_text(json.dumps(record), encoding="utf-8")
    return json.dumps({key: value for key, value in record.items() if key != "cells"})


def _oracle_record(name: str) -> dict[str, Any]:
    setting, loss = oracle(TASKS[name])
    return {"lr": setting.lr, "beta2": setting.beta2, "final_loss": loss, "initial_loss": initial_loss(TASKS[name])}


def _search_record(name: str, method: str, seed: int) -> dict[str, Any]:
    task = TASKS[name]
    with counted_steps() as count:
        found = load_method(method)(task, seed)
    record = {"n_steps": count[0] + found.n_steps_elsewhere, "n_sent": found.n_sent}
    if found.setting is None:
        return record
    setting = found.setting
    seeds = range(FIRST_FRESH + seed, FIRST_FRESH + seed + FRESH_SEEDS)
    runs = [train(task, setting, s, FULL_STEPS, stops_on_spike=False) for s in seeds]
    return record | {
        "lr": setting.lr,
        "beta2": setting.beta2,
        "n_spiky": sum(run.is_spiky for run in runs),
        "n_fresh": len(runs),
        "final_losses": [run.final_loss for run in runs],
    }
