"""Run what was drawn and write the corpus; runs that are done are kept, so that an interrupted generation goes on."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import pickle
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.corpus.families import Family, draw_specs
from benchmarks.corpus.traces import trace_of, write_traces
from stabletune.records import TrialSpec

Job = tuple[Family, TrialSpec, Path]


def generate(families: Sequence[Family], output: Path, *, seed: int, n_jobs: int) -> None:
    """Run every family's draws in ``n_jobs`` processes of one thread and write their traces to ``output``."""
    kept = Path("build") / f"corpus-{seed}"
    kept.mkdir(parents=True, exist_ok=True)
    jobs: list[Job] = [
        (family, spec, kept / f"{family.name}-{spec.number:03}.pickle")
        for family in families
        for spec in draw_specs(family, seed)
    ]
    # the families in turn, so that a part of the corpus is a small corpus
    missing = sorted((job for job in jobs if not job[2].exists()), key=lambda job: job[1].number)
    started = time.perf_counter()
    spawning = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(n_jobs, mp_context=spawning) as pool:
        for n_done, line in enumerate(pool.map(_run, missing), start=1):
            print(f"{n_done}/{len(missing)} {time.perf_counter() - started:.0f} s {line}", flush=True)
    traces = [pickle.loads(path.read_bytes()) for _, _, path in jobs]
    write_traces(output, [trace for trace in traces if trace is not None])
    n_failed = sum(trace is None for trace in traces)
    print(f"{len(traces) - n_failed} runs, {n_failed} failed: {output}, {output.stat().st_size / 1e6:.1f} MB")


def _run(job: Job) -> str:
    from stabletune.trial.worker import run_trial

    family, spec, path = job
    result = run_trial(spec)
    trace = None if result.status == "failed" else trace_of(family.name, result, family.loss_floor)
    path.write_bytes(pickle.dumps(trace))
    n_spikes, what = len(result.episodes), f"{family.name} {spec.number}"
    return f"{what}: {result.status}, {n_spikes} spikes, {result.seconds:.1f} s; {result.reason}"
