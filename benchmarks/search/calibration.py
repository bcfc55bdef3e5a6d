"""Is the boundary model right? Its predictions for settings that it has not seen against what became of them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.search.oracle import MEMORIES, RATES
from benchmarks.search.tasks import BETA2, FULL_STEPS, LR, TRIAL_STEPS, Task
from benchmarks.search.training import Setting, train
from stabletune.hyperparameters import default_settings
from stabletune.records import TrialSpec
from stabletune.space import FloatRange, SearchSpace
from stabletune.study.prediction.boundary import Boundary
from stabletune.study.prediction.observation import Observation
from stabletune.study.prediction.outlook import pooled
from stabletune.study.prediction.place import place_of
from stabletune.trial.worker import run_trial

SEEDS = (1000, 1001, 1002)
N_TRIALS, N_FULL, N_DRAWS = 40, 4, 10
SPACE = SearchSpace({"lr": FloatRange(*LR, "log"), "beta2": FloatRange(*BETA2, "log_one_minus")})
BINS = (0.0, 0.2, 0.5, 0.8, 0.95, 1.0)


def grid_record(task: Task) -> list[dict[str, Any]]:
    """For each setting of the oracle's grid a short instrumented trial, and three full runs until they spike."""
    return [_cell(task, Setting(lr, beta2)) for lr in RATES for beta2 in MEMORIES]


def _cell(task: Task, setting: Setting) -> dict[str, Any]:
    spec = TrialSpec(
        number=1,
        purpose="search",
        seed=0,
        steps=TRIAL_STEPS,
        full_steps=FULL_STEPS,
        params=default_settings() | {"lr": setting.lr, "beta2": setting.beta2},
        workload=task.reference,
        workload_args=dict(task.arguments),
        schedule="constant",
        metric="final_loss",
        source="train",
        target=None,
        overhead=0.15,
        every=None,
        stops_on_spike=True,
        predicts=True,
    )
    short = run_trial(spec, lambda progress: True)
    runs = [train(task, setting, seed, FULL_STEPS, stops_on_spike=True) for seed in SEEDS]
    return {
        "lr": setting.lr,
        "beta2": setting.beta2,
        "short": {"steps": short.steps, "is_clean": short.status == "completed" and not short.is_spiky},
        "risk": short.risk,
        "full": [{"steps": len(run.losses), "is_clean": not run.is_spiky} for run in runs],
    }


def calibration_table(grids: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Predicted against observed shares of clean runs, and mean squared errors, over random draws of what is known."""
    rng = np.random.default_rng(0)
    found = [_one_draw(list(cells), rng) for cells in grids.values() for _ in range(N_DRAWS)]
    boundary, forecast, both, clean = (np.concatenate(column) for column in zip(*found, strict=True))
    lines = ["| predicted to stay clean | settings | predicted | observed |", "| --- | ---: | ---: | ---: |"]
    for low, high in itertools.pairwise(BINS):
        here = (both >= low) & (both < high) if high < 1.0 else both >= low
        if here.any():
            predicted, observed = both[here].mean(), clean[here].mean()
            lines.append(f"| {low:g} to {high:g} | {here.sum()} | {predicted:.2f} | {observed:.2f} |")
    lines += ["", "| chance to stay clean from | mean squared error |", "| --- | ---: |"]
    constant = np.full(clean.size, clean.mean())
    names = {"boundary model": boundary, "a trial's own forecast": forecast, "both": both, "one number": constant}
    lines += [f"| {name} | {np.mean((p - clean) ** 2):.3f} |" for name, p in names.items()]
    return "\n".join(lines) + "\n"


def _one_draw(
    cells: Sequence[Mapping[str, Any]], rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Fit to 40 trials of 500 steps, 4 of them run to the end too; judge every other setting whose trial was clean."""
    order = rng.permutation(len(cells))
    known = [cells[n] for n in order[:N_TRIALS]]
    runs = [_observation(cell, cell["short"]) for cell in known]
    clean = [cell for cell in known if cell["short"]["is_clean"]]
    runs += [_observation(cell, cell["full"][0]) for cell in clean[:N_FULL]]
    boundary = Boundary(runs, n_coordinates=2, horizon=FULL_STEPS, lr_coordinate=0)
    others = [cell for n in order[N_TRIALS:] if (cell := cells[n])["short"]["is_clean"]]
    predicted = boundary.survival([place_of(cell, SPACE) for cell in others])
    risks = [cell["risk"] for cell in others]
    observed = np.array([np.mean([run["is_clean"] for run in cell["full"]]) for cell in others])
    return predicted, 1.0 - np.array(risks, dtype=np.float64), pooled(predicted, risks), observed


def _observation(cell: Mapping[str, Any], run: Mapping[str, Any]) -> Observation:
    return Observation(
        number=0,
        place=place_of(cell, SPACE),
        lr=cell["lr"],
        warmup_steps=0,
        full_steps=FULL_STEPS,
        steps=run["steps"],
        has_spiked=not run["is_clean"],
        curve=(),
        log_initial=0.0,
        loss_floor=0.0,
        objective=None,
        risk=None,
        severity=0.0,
    )
