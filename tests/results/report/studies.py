"""Synthetic studies in run folders: realistic curves, spikes and readings, without any training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stabletune.records import Measurement, Purpose, TrialResult
from stabletune.results.binomial import spiky_run_rate_upper
from stabletune.results.recommendation import Recommendation, settings_from
from stabletune.results.store import RunFolder
from tests.results.runs import PARAMS, make_episode, make_measurement, make_result, make_spec

CONFIG: dict[str, Any] = {
    "name": "diabetes-mlp",
    "workload": "/data/project/workload.py:build",
    "search_space": {
        "lr": {"low": 1e-4, "high": 1e-1, "scale": "log"},
        "beta2": {"low": 0.9, "high": 0.9999, "scale": "log_one_minus"},
    },
    "baseline": {"lr": 1e-3, "beta2": 0.999},
    "budget": {"trials": 24, "trial_steps": 500, "full_steps": 2500, "confirm_seeds": 5},
    "objective": {"metric": "final_loss", "source": "train", "target": None},
    "schedule": {"name": "constant", "warmup_ratio": 0.0},
}
BEST: dict[str, Any] = {"lr": 0.0123, "beta2": 0.9612}


def losses_with_spikes(steps: int, spikes: list[int], *, rate: float, seed: int) -> NDArray[np.float64]:
    """A falling noisy loss that jumps a hundredfold at each of ``spikes``."""
    generator = np.random.default_rng(seed)
    time = np.arange(steps, dtype=np.float64)
    losses = 0.8 * np.exp(-time * rate) + 4e-4 * (1 + 300 / (time + 300))
    losses *= np.exp(generator.normal(0, 0.04, steps))
    for spike in spikes:
        after = time >= spike
        losses[after] *= 1 + 120 * np.exp(-(time[after] - spike) / 12)
    return losses


def readings(steps: int, spikes: list[int], *, seed: int) -> tuple[Measurement, ...]:
    """S climbs to its edge and is thrown back by each spike; staleness climbs with it."""
    generator = np.random.default_rng(seed)
    rows = []
    for step in range(10, steps, 20):
        since = min((step - spike for spike in spikes if spike <= step), default=step)
        sharpness = 1.06 * (1 - np.exp(-since / 220)) if spikes else 0.93 * (1 - np.exp(-step / 150))
        rows.append(
            make_measurement(
                step,
                sharpness_ratio=float(sharpness * np.exp(generator.normal(0, 0.01))),
                gradient_curvature_ratio=0.3,
                v_hat_staleness=float(np.exp(since / 90) if spikes else 3 + np.sin(step / 50)),
            )
        )
    return tuple(rows)


def proof_run(number: int, purpose: Purpose, seed: int, *, spikes: list[int], **changes: Any) -> TrialResult:
    """One run over the full horizon."""
    losses = losses_with_spikes(2500, spikes, rate=0.02 if number else 0.0015, seed=seed)
    return make_result(
        make_spec(number, purpose=purpose, seed=seed, **changes),
        reason="all 2500 steps done" if not spikes else f"step {spikes[0]}: loss 121× the running median, limit 1.25×",
        losses=losses,
        measurements=readings(2500, spikes, seed=seed),
        episodes=tuple(make_episode(spike + 1, worst_ratio=121.0 - seed) for spike in spikes),
        objective=float(np.median(losses[-125:])),
    )


def write_trials(folder: RunFolder, n_trials: int) -> None:
    """The baseline, then trials all over the space; large lr with large beta2 spikes or diverges."""
    generator = np.random.default_rng(0)
    folder.record(make_result(make_spec(0), losses=losses_with_spikes(500, [], rate=0.004, seed=0), objective=9.1e-3))
    for number in range(1, n_trials):
        changes = {
            "lr": float(10 ** generator.uniform(-4, -1)),
            "beta2": float(1 - 10 ** generator.uniform(-4, -1)),
        }
        changes = BEST if number == 7 else changes
        folder.record(trial(number, changes))


def trial(number: int, changes: dict[str, Any]) -> TrialResult:
    """One short trial, judged by how hot its settings are."""
    heat = changes["lr"] / (1 - changes["beta2"])
    spec = make_spec(number, **changes)
    if number == 5:
        reason = "the workload raised ValueError: <b>shapes & sizes</b> differ"
        return make_result(spec, status="failed", reason=reason, losses=np.ones(0), objective=None, traceback="boom")
    if changes["lr"] > 0.06:
        reason = "step 61: the loss is nan; recorded as diverged."
        losses = np.append(losses_with_spikes(60, [40], rate=0.02, seed=number), np.nan)
        return make_result(spec, status="diverged", reason=reason, losses=losses, objective=None)
    if heat > 2:
        reason = "step 240: loss 121× the running median; the limit is 1.25× and 8 σ"
        losses = losses_with_spikes(240, [228], rate=0.02, seed=number)
        return make_result(spec, status="stopped", reason=reason, losses=losses, episodes=(make_episode(229),))
    if changes["lr"] < 3e-4:
        reason = "step 200: trailing median 0.41, three times slower than the best trial there"
        return make_result(spec, status="pruned", reason=reason, losses=np.full(200, 0.41), objective=0.41)
    losses = losses_with_spikes(500, [], rate=0.02, seed=number)
    return make_result(spec, losses=losses, measurements=readings(500, [], seed=number), objective=float(losses[-1]))


def finished_study(path: Path) -> RunFolder:
    """A study that recommends trial 7."""
    folder = RunFolder(path)
    folder.create(CONFIG)
    write_trials(folder, 24)
    folder.record(proof_run(3, "confirmation", 1, spikes=[1890], lr=0.004, beta2=0.995))
    for seed in range(1, 6):
        folder.record(proof_run(7, "confirmation", seed, spikes=[], **BEST))
        folder.record(proof_run(0, "baseline", seed, spikes=[700 + 90 * seed, 1900 + 20 * seed]))
    rows = folder.confirmations.rows()
    baseline = float(np.median([row["objective"] for row in rows if row["purpose"] == "baseline"]))
    recommended = float(np.median([row["objective"] for row in rows if row["candidate"] == 7]))
    ratio = recommended / baseline
    settings = settings_from({**PARAMS, **BEST}, "constant")
    evidence = {
        "confirmed_steps": 2500,
        "confirm_seeds": 5,
        "spiky_runs": 0,
        "candidates_tried": 2,
        "spiky_run_rate_upper_95": round(spiky_run_rate_upper(0, 5, 0.05 / 2), 4),
        "objective": {"metric": "final_loss", "recommended": recommended, "baseline": baseline, "ratio": ratio},
        "baseline_spiky_runs": 5,
        "max_sharpness_ratio": 0.95,
        "training_steps_spent": 41500,
    }
    Recommendation(settings, evidence, {"stabletune": "0.1.0", "seed": 0}).save(folder.recommendation_path)
    folder.write_analysis({"ending": "recommended", "outcome": "Trial 7 is recommended."})
    return folder


def unfinished_study(path: Path, *, n_trials: int = 9) -> RunFolder:
    """A study that was interrupted during the search."""
    folder = RunFolder(path)
    folder.create(CONFIG)
    write_trials(folder, n_trials)
    return folder


def fruitless_study(path: Path) -> RunFolder:
    """A study whose every candidate spiked in the proof."""
    folder = unfinished_study(path, n_trials=24)
    folder.record(proof_run(7, "confirmation", 1, spikes=[], **BEST))
    folder.record(proof_run(7, "confirmation", 2, spikes=[2210], **BEST))
    folder.record(proof_run(3, "confirmation", 3, spikes=[1890], lr=0.004, beta2=0.995))
    return folder
