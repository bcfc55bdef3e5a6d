"""What the monitor adds to a training loop on the clock: copies of one training, run in turn block by block.

Two figures: the time of all blocks against the plain copy's, which holds everything and the machine's noise (the plain
loop run twice shows how much); and the time inside ``monitor.step`` against the rest of the same blocks.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from benchmarks.signals.models import TASKS, Batch, Task
from benchmarks.signals.tables import percent, seconds, table
from stabletune import StabilityMonitor

N_STEPS, N_QUICK, BLOCK = 1000, 100, 25
WARM_UP = 10
TOLERANCE = 0.02
LEAST_READINGS = {"MLP": 15, "CNN": 7, "transformer": 10}
OVERHEADS = (0.05, 0.15)


class Copy:
    """One copy of a training, with a monitor or without; all copies see the same batches."""

    def __init__(self, task: Task, label: str, monitor: Callable[..., StabilityMonitor] | None = None) -> None:
        self.label = label
        self.task = task
        self.optimizer = task.optimizer()
        self.monitor = monitor(task.model, self.optimizer) if monitor else None
        self.seconds: list[float] = []
        self.seconds_in_monitor = 0.0
        self.n_sharpness = self.n_readings = 0
        self.has_read: list[bool] = []

    def block(self, n_steps: int) -> None:
        """Train some steps on the clock; the batches are drawn before."""
        batches = [next(self.task.batches) for _ in range(n_steps)]
        before = self.n_readings
        self.seconds.append(seconds(lambda: self._train(batches))[0])
        self.has_read.append(self.n_readings > before)

    def _train(self, batches: list[Batch]) -> None:
        for batch in batches:
            self.optimizer.zero_grad()
            loss = self.task.loss(batch)
            loss.backward()
            self.optimizer.step()
            if self.monitor is None:
                continue
            started = time.perf_counter()
            reading = self.monitor.step(loss, lambda: self.task.loss(batch))  # noqa: B023
            self.seconds_in_monitor += time.perf_counter() - started
            if reading is not None:
                self.n_readings += 1
                self.n_sharpness += reading.sharpness_ratio is not None


def run(*, quick: bool) -> None:
    """Print one table per model."""
    n_steps = N_QUICK if quick else N_STEPS
    for name, build in TASKS.items():
        plain, *others = copies = _copies(build, n_steps)
        throwaway = Copy(build(), "")
        throwaway.block(WARM_UP)
        for number in range(n_steps // BLOCK):
            first = number % len(copies)
            for copy in copies[first:] + copies[:first]:
                copy.block(BLOCK)
        _print(name, n_steps, plain, others)


def _copies(build: Callable[[], Task], n_steps: int) -> list[Copy]:
    copies = [Copy(build(), "plain"), Copy(build(), "plain again (the noise)")]
    for overhead in OVERHEADS:
        for steps in (n_steps, None):

            def monitor(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> StabilityMonitor:
                return StabilityMonitor(model, optimizer, overhead=overhead, steps=steps)  # noqa: B023

            label = f"overhead {overhead}" + (f", steps={steps}" if steps else "")
            copies.append(Copy(build(), label, monitor))
    return copies


def _print(model: str, n_steps: int, plain: Copy, others: list[Copy]) -> None:
    rows = []
    for copy in others:
        inside = copy.seconds_in_monitor / (sum(copy.seconds) - copy.seconds_in_monitor)
        added = sum(copy.seconds) / sum(plain.seconds) - 1
        pairs = zip(copy.seconds, plain.seconds, copy.has_read, strict=True)
        idle = [a / b - 1 for a, b, has_read in pairs if not has_read]
        cells = [
            copy.label,
            percent(added),
            percent(inside),
            "",
            percent(statistics.median(idle)) if idle else "-",
            len(idle),
        ]
        if copy.monitor is not None:
            asked = float(copy.label.split(",")[0].split()[1])
            least = round(LEAST_READINGS[model] * asked / OVERHEADS[0] * n_steps / N_STEPS)
            cells[3] = f"<= {percent(asked + TOLERANCE)}"
            cells += [percent(copy.monitor.overhead), copy.n_sharpness, f">= {least}", copy.n_readings]
        else:
            cells += [""] * 4
        rows.append([*cells, _is_same(copy, plain)])
    columns = [
        "loop",
        "added time",
        "inside monitor.step",
        "goal",
        "in blocks without a reading, median",
        "n",
        "booked",
    ]
    columns += ["readings of S", "goal", "all readings", "weights as plain"]
    step = 1000 * sum(plain.seconds) / n_steps
    table(f"Overhead, {model}, {n_steps} steps in blocks of {BLOCK} (plain step {step:.3g} ms)", columns, rows)


def _is_same(copy: Copy, plain: Copy) -> str:
    pairs = zip(copy.task.model.parameters(), plain.task.model.parameters(), strict=True)
    return "bit for bit" if all(torch.equal(a, b) for a, b in pairs) else "DIFFER"
