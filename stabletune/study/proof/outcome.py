"""From a finished proof to what the user is told: the recommendation with its evidence, or what came closest."""

from __future__ import annotations

import dataclasses
import math
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from stabletune.config import Config
from stabletune.hyperparameters import WORKLOAD_ARGS
from stabletune.judgement.objective import over_seeds, ratio_to_baseline
from stabletune.records import UNEXPLAINED
from stabletune.results.binomial import spiky_run_rate_upper
from stabletune.results.recommendation import Recommendation, settings_from
from stabletune.study.proof.proof_runs import ProofRun
from stabletune.study.proof.prospects import Candidate, Prospect

Ending = Literal["recommended", "nothing_survived", "out_of_time"]


@dataclasses.dataclass(frozen=True)
class StudyResult:
    """How a study ended.

    ``message`` says it in a sentence; ``recommendation`` is None unless ``ending`` is ``recommended``.
    """

    ending: Ending
    message: str
    folder: Path
    n_trials: int
    recommendation: Recommendation | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Proof:
    """A winner with everything the evidence is made of."""

    winner: Prospect
    baseline_runs: list[ProofRun]
    n_sent: int
    steps_spent: int
    device: str


def recommend(
    config: Config,
    proof: Proof,
    *,
    lr_margin: float | None = None,
    point: Mapping[str, int] | None = None,
    has_hardly_fallen: bool = False,
) -> Recommendation:
    """The recommendation of a proven candidate.

    Args:
        config: of the study.
        proof: the winner and everything the evidence is made of.
        lr_margin: how far its learning rate is from the edge.
        point: which point of the front between speed and stability it is, if one was asked for.
        has_hardly_fallen: whether its loss is still near what it was at the start, which is then warned of.
    """
    winner = proof.winner
    arguments = config.arguments(winner.candidate.values)
    searched = [
        name.removeprefix(WORKLOAD_ARGS) for name in config.search_space.ranges if name.startswith(WORKLOAD_ARGS)
    ]
    settings = settings_from(
        config.settings(winner.candidate.values),
        config.schedule.name,
        workload_args={name: arguments[name] for name in searched if name in arguments},
    )
    n_runs = len(winner.runs)
    evidence: dict[str, Any] = {
        "confirmed_steps": config.budget.full_steps,
        "confirm_seeds": n_runs,
        "spiky_runs": 0,
        "candidates_tried": proof.n_sent,
        "spiky_run_rate_upper_95": round(spiky_run_rate_upper(0, n_runs, 0.05 / proof.n_sent), 4),
        "predicted_clean_rate": round(winner.clean_rate, 4),
        "lr_margin": None if lr_margin is None else float(f"{lr_margin:.3g}"),
        "objective": _comparison(config, winner, proof.baseline_runs),
        "baseline_spiky_runs": sum(run.is_spiky for run in proof.baseline_runs),
        "max_sharpness_ratio": max((r.max_sharpness_ratio for r in winner.runs if r.max_sharpness_ratio), default=None),
        "training_steps_spent": proof.steps_spent,
    }
    if has_hardly_fallen:
        evidence["warning"] = (
            "The loss is still above half of its initial value: spike-free, but it hardly trained. "
            "Search lower learning rates, more trials or a longer horizon."
        )
    if point is not None:
        evidence["tradeoff"] = dict(point)
    return Recommendation(settings, evidence, _provenance(config, proof.device) | {"trial": winner.candidate.number})


def explain_failure(
    config: Config,
    candidates: list[Candidate],
    runs: list[ProofRun],
    *,
    n_sent: int,
    all_diverged: bool,
    diagnoses: Sequence[tuple[str, str]] = (),
) -> str:
    """One sentence or two on why nothing is recommended, with what came closest.

    ``runs``: those that decided, the baseline's first among them; ``diagnoses``: cause and remedy of each search trial
    that spiked.
    """
    if all_diverged:
        return (
            "Every trial's loss became nan or infinite, the baseline's too. "
            "Check the data and the loss with `stabletune trial` before searching."
        )
    if not candidates:
        return f"No trial completed without a spike, so nothing was sent to the proof. {_advice(config, diagnoses)}"
    sent = {candidate.number for candidate in candidates}
    proofs = [run for run in runs if run.candidate in sent] or list(runs)
    closest = max(proofs, key=lambda run: _runs_survived(proofs, run.candidate) + run.steps / config.budget.full_steps)
    n_clean = _runs_survived(proofs, closest.candidate)
    lost = next((run for run in proofs if run.candidate == closest.candidate and not run.is_clean), closest)
    return (
        f"None of {n_sent} candidates survived the proof at {config.budget.full_steps} steps. "
        f"Trial {closest.candidate} came closest: {n_clean} clean of {config.budget.confirm_seeds} seeds, "
        f"then seed {lost.seed} ended with {lost.reason}"
    )


def _advice(config: Config, diagnoses: Sequence[tuple[str, str]]) -> str:
    """What most diagnoses say, if any cause was found; else where the search space can be widened."""
    known = [(cause, remedy) for cause, remedy in diagnoses if cause != UNEXPLAINED]
    if known:
        (cause, n), *_ = Counter(cause for cause, _ in known).most_common(1)
        remedy = next(remedy for found, remedy in known if found == cause)
        return f"Of {len(diagnoses)} trials that spiked, {n} were diagnosed as {cause}. The first of them: {remedy}"
    lower = [f"{name}.low" for name in ("lr", "beta2") if name in config.search_space.ranges]
    wider = f"Lower {' or '.join(lower)} in the search space" if lower else "Search lr and beta2"
    return f"{wider}, or search warmup_ratio."


def _runs_survived(proofs: list[ProofRun], candidate: int) -> int:
    return sum(run.is_clean for run in proofs if run.candidate == candidate)


def _comparison(config: Config, winner: Prospect, baseline_runs: list[ProofRun]) -> dict[str, Any]:
    """The objectives side by side; the baseline's is None if half or more of its runs did not get to the end.

    The ratio is None without a baseline, and for objectives that are not positive, of which it says nothing.
    """
    metric, source = config.objective.metric, config.objective.source
    value = over_seeds([run.objective for run in winner.runs if run.objective is not None])
    baseline = over_seeds([float("inf") if run.objective is None else run.objective for run in baseline_runs])
    if not math.isfinite(baseline):
        return {"metric": metric, "recommended": value, "baseline": None, "ratio": None}
    is_logarithm = metric == "loss_auc" and source == "train"
    has_ratio = is_logarithm or (value > 0.0 and baseline > 0.0)
    ratio = ratio_to_baseline(metric, value, baseline, source=source) if has_ratio else None
    return {"metric": metric, "recommended": value, "baseline": baseline, "ratio": ratio}


def _provenance(config: Config, device: str) -> dict[str, Any]:
    return {
        "stabletune": _version_of("stabletune"),
        "torch": _version_of("torch"),
        "python": platform.python_version(),
        "device": device,
        "seed": config.seed,
        "config_sha256": config.sha256(),
    }


def _version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
