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


def is_inside(space: SearchSpace, values: Mapping[str, Any]) -> bool:
    """Whether the space holds every one of its hyperparameters among ``values``."""
    return all(
        name in values and _nearest(name, values, space) == _stored(name, values, space) for name in space.ranges
    )


def nearest_params(space: SearchSpace, values: Mapping[str, Any]) -> dict[str, Any]:
    """Optuna's parameters nearest to ``values``: the value itself, else the nearer bound, else the first choice.

    None, which switches a clip off, is nearest to the highest limit.
    """
    return {stored_name: _nearest(name, values, space) for name, (stored_name, _) in distributions(space).items()}


def _stored(name: str, values: Mapping[str, Any], space: SearchSpace) -> Any:
    value = values.get(name)
    is_complement = distributions(space)[name][0] != name
    return 1.0 - value if is_complement and value is not None else value


def _nearest(name: str, values: Mapping[str, Any], space: SearchSpace) -> Any:
    value, distribution = _stored(name, values, space), distributions(space)[name][1]
    if isinstance(distribution, CategoricalDistribution):
        return value if value in distribution.choices else distribution.choices[0]
    low, high = distribution.low, distribution.high  # type: ignore[attr-defined]
    nearest = high if value is None else min(max(value, low), high)
    return round(nearest) if isinstance(distribution, IntDistribution) else nearest


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
