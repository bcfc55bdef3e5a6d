"""Every mitigation against untouched AdamW on five tasks that spike, five seeds each: see docs/mitigations.md.

About a quarter of an hour on one core; ``--quick`` takes one seed and a fifth of the steps. Two tables in Markdown.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mitigations.runs import Outcome, cost_ratio, run
from mitigations.tasks import TASKS

N_SEEDS = 5
ARMS: dict[str, dict[str, Any]] = {
    "untouched": {},
    "max_grad_norm 1": {"max_grad_norm": 1.0},
    "max_grad_norm 0.1": {"max_grad_norm": 0.1},
    "update_clip 1": {"update_clip": 1.0},
    "second_moment_clip 5000": {"second_moment_clip": 5000.0},
    "second_moment_clip 10": {"second_moment_clip": 10.0},
    "second_moment_reset 20": {"second_moment_reset": 20.0},
    "second_moment_reset 5": {"second_moment_reset": 5.0},
    "second_moment_reset 2": {"second_moment_reset": 2.0},
    "amsgrad": {"amsgrad": True},
    "beta2_exponent 0.8": {"beta2_exponent": 0.8},
    "eps 1e-4": {"eps": 1e-4},
    "eps 1e-2": {"eps": 1e-2},
    "warmup_ratio 0.1": {"warmup_ratio": 0.1},
    "beta2 0.95": {"beta2": 0.95},
    "beta2 0.9": {"beta2": 0.9},
    "lr / 3": {"lr_factor": 1 / 3},
    "max_grad_norm 0.1, beta2 0.95": {"max_grad_norm": 0.1, "beta2": 0.95},
}


def settings_of(arm: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """An arm's settings on a task; ``lr_factor`` is taken of the task's own lr."""
    changes = {name: value for name, value in arm.items() if name != "lr_factor"}
    return changes | ({"lr": base["lr"] * arm["lr_factor"]} if "lr_factor" in arm else {})


def outcomes_of(arm: Mapping[str, Any], tasks: Mapping[str, Any], n_seeds: int) -> dict[str, list[Outcome]]:
    """Every run of an arm, by task."""
    return {
        name: [run(task, settings_of(arm, task.settings), seed) for seed in range(n_seeds)]
        for name, task in tasks.items()
    }


def overall_row(found: Mapping[str, list[Outcome]], plain: Mapping[str, list[Outcome]], cost: float) -> list[str]:
    """Counts over all runs, and the median over pairs of runs from the same start of the objective's ratio."""
    runs = [outcome for outcomes in found.values() for outcome in outcomes]
    others = [outcome for outcomes in plain.values() for outcome in outcomes]
    ratios = [ours.final_loss / theirs.final_loss for ours, theirs in zip(runs, others, strict=True)]
    return [
        f"{sum(outcome.n_spikes for outcome in runs)}",
        f"{sum(outcome.n_spikes > 0 for outcome in runs)} of {len(runs)}",
        f"{sum(outcome.severity for outcome in runs):.0f}",
        f"{max(outcome.worst_ratio for outcome in runs):.3g}",
        f"{statistics.median(ratios):.3g}",
        f"{cost:.2f}",
    ]


def task_row(found: Mapping[str, list[Outcome]], plain: Mapping[str, list[Outcome]]) -> list[str]:
    """By task: spiky runs, severity per run and the objective's ratio."""
    cells = []
    for name, outcomes in found.items():
        ratio = statistics.median(o.final_loss / p.final_loss for o, p in zip(outcomes, plain[name], strict=True))
        severity = statistics.fmean(outcome.severity for outcome in outcomes)
        cells.append(f"{sum(outcome.n_spikes > 0 for outcome in outcomes)} / {severity:.0f} / {ratio:.2g}")
    return cells


def print_table(title: str, columns: Sequence[str], rows: Mapping[str, Sequence[str]]) -> None:
    """One table in Markdown."""
    print(f"\n{title}\n\n| | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}")
    for name, cells in rows.items():
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Run all arms, then print."""
    torch.set_num_threads(1)
    is_quick = "--quick" in sys.argv
    tasks = {
        name: dataclasses.replace(task, n_steps=task.n_steps // 5) if is_quick else task for name, task in TASKS.items()
    }
    overall, by_task, plain = {}, {}, {}
    for name, arm in ARMS.items():
        found = outcomes_of(arm, tasks, 1 if is_quick else N_SEEDS)
        plain = plain or found
        cost = statistics.median(cost_ratio(task, settings_of(arm, task.settings)) for task in tasks.values())
        overall[name], by_task[name] = overall_row(found, plain, cost), task_row(found, plain)
        print(name, *overall[name], *by_task[name], sep=" | ", file=sys.stderr, flush=True)
    columns = ["spikes", "spiky runs", "severity", "worst ratio", "final loss / untouched", "step / untouched"]
    print_table("All runs", columns, overall)
    print_table("By task: spiky runs, severity per run, final loss / untouched", list(tasks), by_task)


if __name__ == "__main__":
    main()
