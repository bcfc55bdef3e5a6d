"""Compare searches by the training steps they take: ``python -m benchmarks.search``; runs are kept and not repeated.

A slice takes about a quarter of an hour on two cores; ``--full`` is the whole, hours, in as many pieces as one likes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.document import write_measured
from benchmarks.search.calibration import calibration_table
from benchmarks.search.methods import METHODS
from benchmarks.search.runs import Job, run_missing
from benchmarks.search.score import tables
from benchmarks.search.tasks import TASKS

SLICE_TASKS = ("tanh_regression", "diabetes", "cnn")
SLICE_METHODS = ("stabletune_search", "tpe_spike_constraint", "halving")
SLICE_SEEDS, FULL_SEEDS = 2, 5


def main() -> None:
    """Make the runs that are missing, print the tables, and put them into docs/search.md if asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search", description=__doc__)
    parser.add_argument("--full", action="store_true", help="every task, method and seed")
    parser.add_argument("--tasks", nargs="*", choices=TASKS, help="some of them")
    parser.add_argument("--methods", nargs="*", choices=METHODS, help="some of them")
    parser.add_argument("--seeds", type=int, help="searches per task and method")
    parser.add_argument("--jobs", type=int, default=2, help="processes, one thread each")
    parser.add_argument("--kept", type=Path, default=Path("build") / "search", help="where runs are kept")
    parser.add_argument("--calibration", action="store_true", help="judge the boundary model on a grid instead")
    parser.add_argument("--write", action="store_true", help="replace the tables of docs/search.md")
    options = parser.parse_args()
    tasks = options.tasks or (list(TASKS) if options.full else SLICE_TASKS)
    methods = options.methods or (METHODS if options.full else SLICE_METHODS)
    n_seeds = options.seeds or (FULL_SEEDS if options.full else SLICE_SEEDS)
    if options.calibration:
        grids = run_missing([(task, "grid", 0) for task in tasks], options.kept, n_jobs=options.jobs)
        print(calibration_table({grid["task"]: grid["cells"] for grid in grids}))
        return
    jobs: list[Job] = [(task, method, seed) for seed in range(n_seeds) for task in tasks for method in methods]
    jobs += [(task, "oracle", 0) for task in tasks]
    found = run_missing(jobs, options.kept, n_jobs=options.jobs)
    text = tables(found)
    print(text)
    if options.write:
        write_measured("search.md", text)


if __name__ == "__main__":
    main()
