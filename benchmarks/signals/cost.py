"""What one measurement costs in AdamW steps, ours along real training and each peer's at points of the same run."""

from __future__ import annotations

import statistics
from collections import defaultdict

import numpy as np

from benchmarks.signals.models import TASKS, Task
from benchmarks.signals.peers import installed, run_peer
from benchmarks.signals.reference import Reference, point
from benchmarks.signals.tables import percent, quantiles, seconds, table
from stabletune import StabilityMonitor

EVERY = 10
WARM_UP = 50
# rounds of EVERY steps with one measurement each; at how many of them the peers measure too
ROUNDS = {"MLP": (30, 3), "CNN": (40, 5), "transformer": (20, 2)}
QUICK_ROUNDS = {"MLP": (4, 1), "CNN": (6, 2), "transformer": (2, 1)}
GOALS = {"MLP": "<= 4", "CNN": "<= 6", "transformer": "<= 5"}
OURS = "stabletune, tracked"


class Costs:
    """Paired ratios (measurement over the median step of its round) and errors, by tool."""

    def __init__(self) -> None:
        self.ratios: dict[str, list[float]] = defaultdict(list)
        self.errors: dict[str, list[float]] = defaultdict(list)
        self.failures: dict[str, str] = {}


def run(*, quick: bool) -> None:
    """Print one table per model."""
    for name, build in TASKS.items():
        n_rounds, n_points = (QUICK_ROUNDS if quick else ROUNDS)[name]
        _print(name, _measure(build(), n_rounds, n_points))


def _measure(task: Task, n_rounds: int, n_points: int) -> Costs:
    costs, peers, reference = Costs(), installed()[0], Reference()
    optimizer = task.optimizer()
    monitor = StabilityMonitor(task.model, optimizer, probe=lambda: task.loss(task.probe), every=EVERY)

    def step() -> float:
        optimizer.zero_grad()
        loss = task.loss(next(task.batches))
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    for _ in range(WARM_UP):
        step()
    points = set(np.linspace(0, n_rounds - 1, n_points + 1).round().astype(int).tolist()[1:])
    for number in range(n_rounds):
        times = []
        for n in range(EVERY):
            taken, loss = seconds(step)
            times.append(taken)
            if n < EVERY - 1:
                monitor.step(loss)
        taken, reading = seconds(lambda: monitor.step(loss))  # noqa: B023
        assert reading is not None
        unit = statistics.median(times)
        costs.ratios[OURS].append(taken / unit)
        if number not in points:
            continue
        at = point(task, optimizer)
        truth = reference(at)
        if reading.sharpness_ratio is not None:
            costs.errors[OURS].append(abs(reading.sharpness_ratio / truth - 1))
        for name, peer in peers.items():
            taken, value = seconds(lambda: run_peer(peer, at))  # noqa: B023
            if isinstance(value, str):
                costs.failures[name] = value
                continue
            costs.ratios[name].append(taken / unit)
            costs.errors[name].append(abs(value / truth - 1))
    return costs


def _print(model: str, costs: Costs) -> None:
    ours = statistics.median(costs.ratios[OURS])
    rows: list[list[object]] = [["plain step, fused AdamW", 1.0, 1.0, 1 / ours, *["-"] * 4]]
    for name, ratios in costs.ratios.items():
        median, _, largest = quantiles(costs.errors[name])
        cost = statistics.median(ratios)
        goal = f"{GOALS[model]}, and below every row here that is right" if name == OURS else ""
        rows.append([name, cost, statistics.fmean(ratios), cost / ours, median, largest, len(ratios), goal])
    rows += [[name, f"failed: {reason}", *[""] * 6] for name, reason in costs.failures.items()]
    rows += [[name, f"not installed: {reason}", *[""] * 6] for name, reason in installed()[1].items()]
    columns = ["tool", "steps, median", "mean", "against ours", "error, median", "error, largest", "n", "goal"]
    n_points = max(map(len, costs.errors.values()), default=0)
    right = percent(0.05)
    note = f"AdamW steps per measurement; errors at {n_points} points; right: within {right}"
    table(f"Cost, {model} ({note})", columns, rows)
