"""Between stabletune's search space and Optuna's distributions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from stabletune.space import Choices, FloatRange, IntRange, SearchSpace

COMPLEMENT_PREFIX = "one_minus_"


def suggest(trial: optuna.trial.Trial, space: SearchSpace) -> dict[str, Any]:
    """Ask the sampler for every hyperparameter of the space; values stored with the trial come back as they are.

    A ``log_one_minus`` range is stored as ``one_minus_NAME``, log-uniform, because Optuna knows no such scale.
    """
    values: dict[str, Any] = {}
    for name, (stored_name, distribution) in distributions(space).items():
        value = _suggest_one(trial, stored_name, distribution)
        values[name] = 1.0 - value if stored_name != name else value
    return values


def distributions(space: SearchSpace) -> dict[str, tuple[str, BaseDistribution]]:
    """For each hyperparameter the name under which Optuna stores it, and its distribution."""
    return {name: _distribution(name, value) for name, value in space.ranges.items()}


def stored_params(space: SearchSpace, values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of ``values`` that lie in the space, under Optuna's names."""
    params = {}
    for name, (stored_name, distribution) in distributions(space).items():
        if name not in values:
            continue
        value = values[name]
        if stored_name != name:
            value = 1.0 - value
        if is_inside(distribution, value):
            params[stored_name] = value
    return params


def is_inside(distribution: BaseDistribution, value: Any) -> bool:
    """Whether the distribution can produce the value."""
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    return value is not None and distribution.low <= value <= distribution.high  # type: ignore[attr-defined]


def _suggest_one(trial: optuna.trial.Trial, name: str, distribution: BaseDistribution) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(name, distribution.low, distribution.high, log=distribution.log)
    assert isinstance(distribution, FloatDistribution)
    return trial.suggest_float(name, distribution.low, distribution.high, log=distribution.log)


def _distribution(name: str, value: FloatRange | IntRange | Choices) -> tuple[str, BaseDistribution]:
    if isinstance(value, Choices):
        return name, CategoricalDistribution(list(value.values))
    is_log = value.scale == "log"
    if isinstance(value, IntRange):
        return name, IntDistribution(value.low, value.high, log=is_log)
    if value.scale == "log_one_minus":
        return COMPLEMENT_PREFIX + name, FloatDistribution(1.0 - value.high, 1.0 - value.low, log=True)
    return name, FloatDistribution(value.low, value.high, log=is_log)
