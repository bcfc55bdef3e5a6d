"""Peak memory of a measuring step against a plain one, and what 200 measurements leave behind.

Counted from every allocation and release that the CPU allocator reports to the profiler, so that what operators use
within and what the monitor keeps are both in; models, batches and optimizer state were there before and are not.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable

import torch

from benchmarks.signals.models import TASKS, Task
from benchmarks.signals.tables import table
from stabletune import StabilityMonitor

MOST = 3.5
N_MEASURED = 8
N_SHORT, N_LEAKED, N_QUICK = 20, 200, 30
MEBIBYTE = 2**20
# rows of the probe in the search for leaks: what leaks does not depend on them, its time does
LEAK_ROWS = {"MLP": 64, "CNN": 64, "transformer": 2}


def run(*, quick: bool) -> None:
    """Print one table of peaks and one of what is left."""
    peaks, leaks = [], []
    n_leaked = N_QUICK if quick else N_LEAKED
    for name, build in TASKS.items():
        peaks.append(_peaks(name, build()))
        leaks.append(_left(name, build(), n_leaked))
    columns = ["model", "plain gradient, MiB", "first measuring step, MiB", "later ones, MiB"]
    columns += ["ratio, first", "ratio, later", "goal"]
    table(f"Peak above model, batch and optimizer state, over {N_MEASURED} measuring steps", columns, peaks)
    columns = ["model", f"held after {N_SHORT}", f"held after {n_leaked}", "goal"]
    title = "What a monitor holds after some measurements, in parameter vectors, without the garbage collector"
    table(title, columns, leaks)


def _peaks(name: str, task: Task) -> list[object]:
    optimizer = task.optimizer()
    batch = next(task.batches)

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        loss = task.loss(batch)
        loss.backward()
        return loss

    for _ in range(3):
        step()
        optimizer.step()
    optimizer.zero_grad()
    plain, _ = _peak(step)
    optimizer.zero_grad()
    monitor = StabilityMonitor(task.model, optimizer, probe=lambda: task.loss(task.probe), every=1)

    def measuring(n: int) -> None:
        for _ in range(n):
            loss = step().detach()
            optimizer.step()
            monitor.step(loss)
        optimizer.zero_grad()

    first, held = _peak(lambda: measuring(1))
    later = held + _peak(lambda: measuring(N_MEASURED - 1))[0]
    return [name, plain / MEBIBYTE, first / MEBIBYTE, later / MEBIBYTE, first / plain, later / plain, f"<= {MOST}"]


def _left(name: str, task: Task, n_measured: int) -> list[object]:
    rows = LEAK_ROWS[name]
    inputs, targets = task.probe[0][:rows], task.probe[1][:rows]
    optimizer = task.optimizer()
    task.loss((inputs, targets)).backward()
    optimizer.step()
    size = sum(4 * p.numel() for p in task.model.parameters())
    kept = []

    def measure(n: int) -> None:
        kept.append(StabilityMonitor(task.model, optimizer, probe=lambda: task.loss((inputs, targets)), every=1))
        for _ in range(n):
            kept[-1].step(1.0)

    gc.collect()
    gc.disable()
    try:
        held = [_peak(lambda: measure(n))[1] / size for n in (N_SHORT, n_measured)]  # noqa: B023
    finally:
        gc.enable()
    return [name, *held, "the same, but for a rival's vector"]


def _peak(action: Callable[[], object]) -> tuple[int, int]:
    """The largest and the last number of bytes allocated since the beginning of the action."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with torch.autograd.profiler.profile(profile_memory=True) as profile:
            action()
    events = [e for e in profile.kineto_results.events() if e.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak, live
