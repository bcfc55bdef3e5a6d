"""The guard in ``act`` against untouched AdamW and two usual remedies: see docs/guard.md, which ``--write`` fills in.

Five tasks that spike, on which the guard's thresholds were chosen, five on which they were not, and four that are
healthy; five seeds each, some ten minutes on one core (``--quick``: one seed).
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from document import write_measured
from mitigations.tasks import TASKS, Task, shipped

from stabletune import GuardBounds, StabilityGuard, StabilityMonitor
from stabletune.judgement.objective import objective_of
from stabletune.judgement.spikes import SpikeDetector
from stabletune.trial.batch_stream import BatchStream

N_SEEDS, BLOCK, N_BLOCKS = 5, 20, 9
UNSEEN = {
    "tanh regression, lr .01": Task(shipped("tanh_regression"), {"lr": 0.01}, 2000),
    "diabetes MLP, lr .003": Task(shipped("diabetes_mlp"), {"lr": 0.003}, 1500),
    "PINN, lr .002, beta2 .99": Task(shipped("pinn"), {"lr": 0.002, "beta2": 0.99}, 1200),
    "digits autoencoder, lr .02": Task(shipped("digits_autoencoder"), {"lr": 0.02}, 600),
    "modular division, lr .03": Task(shipped("modular_division"), {"lr": 0.03}, 400),
}
HEALTHY = {
    "digits CNN": Task(shipped("digits_cnn"), {"lr": 0.001}, 300),
    "characters": Task(shipped("char_lm"), {"lr": 0.001}, 200),
    "modular division": Task(shipped("modular_division"), {"lr": 0.001}, 300),
    "digits autoencoder": Task(shipped("digits_autoencoder"), {"lr": 0.002}, 500),
}
GROUPS: dict[str, Mapping[str, Task]] = {"chosen on": TASKS, "unseen": UNSEEN, "healthy": HEALTHY}


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Steps in spikes, the sum of their severities, the final loss, and the share of steps with a smaller lr."""

    n_spike_steps: int
    severity: float
    final_loss: float
    braked: float


@dataclasses.dataclass(frozen=True)
class Arm:
    """What is done to AdamW: bounds of a guard, or settings of its own."""

    bounds: GuardBounds | None = None
    max_grad_norm: float | None = None
    beta2: float | None = None


ARMS = {
    "untouched": Arm(),
    "guard": Arm(GuardBounds()),
    "guard, lr only": Arm(GuardBounds(beta2=None, limits_gradients=False)),
    "guard, no gradient limit": Arm(GuardBounds(limits_gradients=False)),
    "max_grad_norm 1": Arm(max_grad_norm=1.0),
    "beta2 .9": Arm(beta2=0.9),
}


def steps_of(task: Task, arm: Arm, seed: int, *, measures: bool = False) -> Iterator[tuple[float, float]]:
    """Train without end; each step's loss, and the guard's factor on lr."""
    training, settings = task.build(seed), dict(task.settings)
    beta2 = arm.beta2 or settings.pop("beta2", 0.999)
    optimizer = torch.optim.AdamW(training.model.parameters(), lr=settings["lr"], betas=(0.9, beta2))
    monitor = StabilityMonitor(training.model, optimizer, overhead=0.05)
    guard = StabilityGuard(monitor, "act", bounds=arm.bounds) if arm.bounds is not None else None
    batches = BatchStream(training.batches)
    while True:
        batch = next(batches)
        optimizer.zero_grad()
        loss = training.loss_fn(training.model, batch)
        loss.backward()
        if arm.max_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(training.model.parameters(), arm.max_grad_norm)
        optimizer.step()
        reading = monitor.step(loss, lambda batch=batch: training.loss_fn(training.model, batch)) if measures else None
        if guard is not None:
            guard.step(loss, reading)
        with torch.no_grad():
            judged = task.watch(training.model) if task.watch is not None else loss.detach()
        yield float(judged), guard.lr_scale if guard is not None else 1.0


def run(task: Task, arm: Arm, seed: int) -> Outcome:
    judge, losses, n_spike_steps, n_braked = SpikeDetector(), [], 0, 0
    for loss, lr_scale in steps_of(task, arm, seed):
        losses.append(loss)
        n_braked += lr_scale < 1.0
        if not math.isfinite(loss):
            return Outcome(n_spike_steps + task.n_steps - len(losses) + 1, math.inf, math.inf, 0.0)
        n_spike_steps += judge.update(loss) > 1.0
        if len(losses) == task.n_steps:
            break
    severity = sum(episode.severity for episode in judge.episodes)
    return Outcome(n_spike_steps, severity, objective_of("final_loss", losses) or math.inf, n_braked / task.n_steps)


def cost_ratio(task: Task, *, measures: bool) -> float:
    """CPU time of a guarded step, watched too or not, over that of an untouched one, in alternating blocks."""
    ours, theirs = steps_of(task, ARMS["guard"], 0, measures=measures), steps_of(task, ARMS["untouched"], 0)
    for _ in range(BLOCK):
        next(ours), next(theirs)
    return statistics.median(_seconds(ours) / _seconds(theirs) for _ in range(N_BLOCKS))


def _seconds(steps: Iterator[Any]) -> float:
    started = time.process_time()
    for _ in range(BLOCK):
        next(steps)
    return time.process_time() - started


def tables(n_seeds: int, say: Callable[[str], None]) -> str:
    lines = []
    for group, tasks in GROUPS.items():
        plain = {name: [run(task, ARMS["untouched"], seed) for seed in range(n_seeds)] for name, task in tasks.items()}
        lines += [
            f"| {group} | steps in spikes | fewer, median | final loss / untouched, median | by task |",
            "| --- | ---: | ---: | ---: | --- |",
        ]
        for name, arm in ARMS.items():
            found = {t: [run(task, arm, seed) for seed in range(n_seeds)] for t, task in tasks.items()}
            lines.append(_row(name, found, plain))
            say(f"{group}: {lines[-1]}")
        lines.append("")
    costs = [
        statistics.median(cost_ratio(task, measures=measures) for task in TASKS.values()) for measures in (False, True)
    ]
    lines.append(
        f"A guarded step takes {costs[0]:.2f} times the CPU time of an untouched one, {costs[1]:.2f} times with the "
        "monitor at 5 % beside it (median over the five tasks, which are small: one thread, steps of 0.5-2 ms)."
    )
    return "\n".join(lines) + "\n"


def _row(name: str, found: Mapping[str, list[Outcome]], plain: Mapping[str, list[Outcome]]) -> str:
    counts = {task: sum(o.n_spike_steps for o in outcomes) for task, outcomes in found.items()}
    before = {task: sum(o.n_spike_steps for o in outcomes) for task, outcomes in plain.items()}
    fewer = statistics.median(1.0 - counts[task] / before[task] if before[task] else 0.0 for task in counts)
    ratios = {
        task: statistics.median(
            ours.final_loss / theirs.final_loss for ours, theirs in zip(outcomes, plain[task], strict=True)
        )
        for task, outcomes in found.items()
    }
    braked = {task: statistics.fmean(o.braked for o in outcomes) for task, outcomes in found.items()}
    cells = "; ".join(f"{task} {counts[task]}, {ratios[task]:.2g}, {braked[task]:.0%}" for task in counts)
    return f"| {name} | {sum(counts.values())} | {fewer:.0%} | {statistics.median(ratios.values()):.2f} | {cells} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one seed")
    parser.add_argument("--write", action="store_true", help="replace the tables of docs/guard.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("stabletune").setLevel(logging.CRITICAL)
    text = tables(1 if options.quick else N_SEEDS, lambda line: print(line, flush=True))
    print(text)
    if options.write:
        write_measured("guard.md", text)


if __name__ == "__main__":
    main()
