"""Compare searches by the training steps they take: ``python -m benchmarks.search``; runs are kept and not repeated.

A slice takes 20 minutes on two cores; ``--full`` is the whole, hours, in as many pieces as one likes.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import multiprocessing
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.search.methods import METHODS
from benchmarks.search.score import tables
from benchmarks.search.tasks import TASKS

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "search.md"
BEGIN, END = "<!-- begin: measured -->", "<!-- end: measured -->"
SLICE_TASKS = ("tanh_regression", "diabetes", "recurrent")
SLICE_METHODS = ("stabletune_search", "tpe_spike_constraint", "halving")
SLICE_SEEDS, FULL_SEEDS = 2, 5
SEEDS_APART = 10_000
FRESH_SEEDS, FIRST_FRESH = 15, 500_000

Job = tuple[str, str, int]


def main() -> None:
    """Make the runs that are missing, print the tables, and put them into docs/search.md if asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search", description=__doc__)
    parser.add_argument("--full", action="store_true", help="every task, method and seed")
    parser.add_argument("--tasks", nargs="*", choices=TASKS, help="some of them")
    parser.add_argument("--methods", nargs="*", choices=METHODS, help="some of them")
    parser.add_argument("--seeds", type=int, help="searches per task and method")
    parser.add_argument("--jobs", type=int, default=2, help="processes, one thread each")
    parser.add_argument("--kept", type=Path, default=Path("build") / "search", help="where runs are kept")
    parser.add_argument("--write", action="store_true", help="replace the tables of docs/search.md")
    options = parser.parse_args()
    tasks = options.tasks or (list(TASKS) if options.full else SLICE_TASKS)
    methods = options.methods or (METHODS if options.full else SLICE_METHODS)
    n_seeds = options.seeds or (FULL_SEEDS if options.full else SLICE_SEEDS)
    jobs: list[Job] = [(task, method, seed) for seed in range(n_seeds) for task in tasks for method in methods]
    jobs += [(task, "oracle", 0) for task in tasks]
    found = _run(jobs, options.kept, n_jobs=options.jobs)
    text = tables(found)
    print(text)
    if options.write:
        before, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)
        after = rest.partition(END)[2]
        DOCUMENT.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}", encoding="utf-8")


def _run(jobs: Sequence[Job], kept: Path, *, n_jobs: int) -> list[dict[str, Any]]:
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
    import torch

    (name, method, seed), path = entry
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    started = time.perf_counter()
    record = {"task": name, "method": method, "seed": seed}
    record |= _oracle_record(name) if method == "oracle" else _search_record(name, method, SEEDS_APART * (1 + seed))
    record["seconds"] = time.perf_counter() - started
    path.write_text(json.dumps(record), encoding="utf-8")
    return json.dumps(record)


def _oracle_record(name: str) -> dict[str, Any]:
    from benchmarks.search.oracle import oracle
    from benchmarks.search.training import initial_loss

    setting, loss = oracle(TASKS[name])
    return {"lr": setting.lr, "beta2": setting.beta2, "final_loss": loss, "initial_loss": initial_loss(TASKS[name])}


def _search_record(name: str, method: str, seed: int) -> dict[str, Any]:
    from benchmarks.search.methods import load_method
    from benchmarks.search.tasks import FULL_STEPS
    from benchmarks.search.training import counted_steps, train

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


if __name__ == "__main__":
    main()
