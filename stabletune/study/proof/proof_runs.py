"""The runs of a proof: what names one under way, what is kept of one that has ended."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from stabletune.records import Purpose, TrialResult
from stabletune.results.rows import CONFIRMATION_KEY, largest
from stabletune.study.prediction.observation import Observation


class Run(NamedTuple):
    """What names a run that is under way; ``number`` is its candidate's."""

    number: int
    purpose: Purpose
    seed: int
    horizon: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProofRun:
    """One finished proof run. ``objective`` is None unless it completed; ``observation`` is None if it failed."""

    candidate: int
    purpose: Literal["confirmation", "baseline"]
    seed: int
    is_clean: bool
    objective: float | None
    steps: int
    reason: str
    horizon: int
    observation: Mapping[str, Any] | None = None
    max_sharpness_ratio: float | None = None
    is_spiky: bool = False


def proof_run(result: TrialResult, observation: Observation | None) -> ProofRun:
    """What is kept of a run that has ended."""
    return ProofRun(
        candidate=result.spec.number,
        purpose="baseline" if result.spec.purpose == "baseline" else "confirmation",
        seed=result.spec.seed,
        is_clean=result.status == "completed" and not result.is_spiky and result.objective is not None,
        is_spiky=result.is_spiky,
        objective=result.objective,
        steps=result.steps,
        reason=result.reason,
        horizon=result.spec.full_steps,
        observation=observation.as_data() if observation else None,
        max_sharpness_ratio=largest(result.measurements, "sharpness_ratio"),
    )


def is_kept(entry: Mapping[str, Any], kept: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a run is among those that a study keeps already."""
    return any(all(other["row"][name] == entry["row"][name] for name in CONFIRMATION_KEY) for other in kept)


def stored_runs(entries: Sequence[Mapping[str, Any]]) -> list[ProofRun]:
    """The runs among what a study keeps of its proof; of a run that was dropped it keeps the row alone."""
    return [ProofRun(**entry["run"]) for entry in entries if entry["run"]]


def proof_observations(runs: Sequence[ProofRun]) -> list[Observation]:
    """What the proof runs saw."""
    return [observed(run) for run in runs if run.observation is not None]


def observed(run: ProofRun) -> Observation:
    """What a run saw, of one that saw something."""
    assert run.observation is not None
    return Observation(**run.observation)
