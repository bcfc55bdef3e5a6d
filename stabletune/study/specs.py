"""Builds the specs that workers are given, from the configuration and a trial's values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stabletune.config import Config
from stabletune.hyperparameters import WORKLOAD_ARGS
from stabletune.records import Purpose, TrialSpec


def trial_spec(
    config: Config,
    number: int,
    values: Mapping[str, Any],
    *,
    purpose: Purpose = "search",
    seed: int | None = None,
    pace_limits: tuple[tuple[int, float], ...] = (),
    checkpoint: str | None = None,
) -> TrialSpec:
    """The spec of a search trial, or of a proof run over the full horizon.

    Args:
        config: the resolved configuration.
        number: the trial's number; a proof run carries its candidate's.
        values: hyperparameters that differ from the baseline.
        purpose: what the run is for; search trials and candidates in proof stop at their first spike.
        seed: of the run; the search's own seed unless given.
        pace_limits: see ``TrialSpec``.
        checkpoint: see ``TrialSpec``.
    """
    is_search = purpose == "search"
    return TrialSpec(
        number=number,
        purpose=purpose,
        seed=config.seed if seed is None else seed,
        steps=config.budget.trial_steps if is_search else config.budget.full_steps,
        full_steps=config.budget.full_steps,
        params=config.settings(values),
        workload=config.workload,
        workload_args=config.arguments(values),
        schedule=config.schedule.name,
        metric=config.objective.metric,
        source=config.objective.source,
        target=config.objective.target,
        overhead=config.signals.overhead,
        every=config.signals.every,
        stops_on_spike=purpose in ("search", "confirmation"),
        predicts=is_search,
        pace_limits=pace_limits,
        device="cuda" if config.resources.gpus_per_trial else "cpu",
        shadow_beta2=tuple(config.signals.shadow_beta2 or ()),
        shadow_exact=config.signals.shadow_exact,
        sharpness=config.signals.sharpness,
        threads=max(1, int(config.resources.cpus_per_trial)),
        checkpoint=checkpoint,
        checkpoint_seconds=60.0 * (config.budget.checkpoint_minutes or 0.0),
        seconds=_seconds(config, is_search=is_search),
        memory_gib=config.resources.memory_gib_per_trial,
    )


def _seconds(config: Config, *, is_search: bool) -> float | None:
    """The time limit of a search trial; that of a proof run is longer by as much as its horizon."""
    budget = config.budget
    if budget.trial_minutes is None:
        return None
    return 60.0 * budget.trial_minutes * (1.0 if is_search else budget.full_steps / budget.trial_steps)


def all_settings(spec: TrialSpec) -> dict[str, Any]:
    """Every hyperparameter of a spec under the name that the search space gives it."""
    return {**spec.params, **{WORKLOAD_ARGS + name: value for name, value in spec.workload_args.items()}}
