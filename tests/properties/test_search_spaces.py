"""A value survives the way from a search space to Optuna and back, and never leaves its range."""

import math

import optuna
from hypothesis import given
from hypothesis import strategies as st

from stabletune.space import Choices, FloatRange, IntRange, SearchSpace
from stabletune.study.distributions import distributions, is_inside, nearest_params, suggest

positive = st.floats(1e-12, 1e6)
betas = st.floats(0.0, 0.999999)


@st.composite
def ranges(draw):
    kind = draw(st.sampled_from(["linear", "log", "log_one_minus", "whole", "choices"]))
    if kind == "choices":
        return Choices(tuple(draw(st.lists(st.none() | positive, min_size=1, max_size=4, unique=True))))
    if kind == "whole":
        low = draw(st.integers(1, 1000))
        return IntRange(low, low + draw(st.integers(1, 1000)), draw(st.sampled_from(["linear", "log"])))
    drawn = sorted(draw(st.lists(betas if kind == "log_one_minus" else positive, min_size=2, max_size=2, unique=True)))
    return FloatRange(*drawn, kind)


@st.composite
def spaces(draw):
    names = ["lr", "beta2", "weight_decay", "workload_args.width"]
    return SearchSpace(
        {name: draw(ranges()) for name in draw(st.lists(st.sampled_from(names), min_size=1, unique=True))}, "here"
    )


def contains(value, limits):
    if isinstance(limits, Choices):
        return limits.contains(value)
    rounding = 2.0**-52 if limits.scale == "log_one_minus" else 0.0  # of 1 - (1 - x)
    slack = 1e-9 * max(abs(limits.low), abs(limits.high)) + rounding
    return limits.low - slack <= value <= limits.high + slack


@given(space=spaces(), seed=st.integers(0, 2**31))
def test_what_a_sampler_suggests_is_inside_and_comes_back_the_same(space, seed):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    trial = study.ask()
    values = suggest(trial, space)
    assert set(values) == set(space.ranges)
    assert all(contains(value, space.ranges[name]) for name, value in values.items())
    again = study.ask(fixed_distributions={})
    study.enqueue_trial(nearest_params(space, values))
    del again
    repeated = suggest(study.ask(), space)
    for name, value in values.items():
        assert is_alike(repeated[name], value)


@given(space=spaces(), value=st.none() | st.floats(allow_nan=False) | st.text(max_size=3))
def test_the_nearest_parameters_are_always_ones_that_optuna_takes(space, value):
    values = {name: value if not isinstance(value, str) else None for name in space.ranges}
    params = nearest_params(space, values)
    for stored_name, distribution in distributions(space).values():
        assert distribution._contains(distribution.to_internal_repr(params[stored_name]))


@given(space=spaces(), seed=st.integers(0, 2**31))
def test_what_lies_inside_is_its_own_nearest_and_what_does_not_is_outside(space, seed):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    trial = study.ask()
    values = suggest(trial, space)
    if not any(is_at_an_end(value, space.ranges[name]) for name, value in values.items()):
        assert is_inside(space, values)
        nearest = nearest_params(space, values)
        assert all(is_alike(nearest[name], value) for name, value in trial.params.items())
    for name, limits in space.ranges.items():
        assert not is_inside(space, {**values, name: beyond(limits)})


def is_alike(found, value):
    return found == value or math.isclose(found, value, rel_tol=1e-9)


def is_at_an_end(value, limits):
    """Whether 1 - (1 - x) may leave the range by a rounding."""
    is_complement = isinstance(limits, FloatRange) and limits.scale == "log_one_minus"
    return is_complement and min(value - limits.low, limits.high - value) < 1e-12


def beyond(limits):
    """A value above the range, or that is no choice."""
    if isinstance(limits, Choices):
        return -1.0
    return (1.0 + limits.high) / 2 if limits.scale == "log_one_minus" else 2 * limits.high
