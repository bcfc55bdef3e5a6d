"""Runs of losses, norms and rates that drift, tremble, leap, grow and break: few draws make hundreds of steps."""

import math

import numpy as np
from hypothesis import strategies as st

NOT_FINITE = (math.nan, math.inf, -math.inf)
EXTREME = (1.7e308, 1e300, 1e-300, 5e-324)
LARGEST_LOG = 30.0

generators = st.integers(0, 2**32 - 1).map(np.random.default_rng)
tremors = st.sampled_from([0.0, 0.0, 1e-12, 0.001, 0.03, 0.3, 3.0])
slopes = st.sampled_from([0.0, 0.0, 0.0, -0.003, -0.05, 0.003, 0.05])
places = st.integers(0, 999)  # in thousandths of the run
heights = st.sampled_from([0.1, 0.3, 0.7, 1.2, 2.0, 6.0, 20.0, -0.5, -6.0])
bumps = st.lists(
    st.tuples(places, st.integers(1, 70), st.sampled_from(["step", "ramp", "decay", "zigzag"]), heights), max_size=5
)


def _bump(shape, length, height):
    """A change of the logarithm over some steps."""
    if shape == "step":
        return np.full(length, height)
    if shape == "ramp":
        return np.linspace(height / length, height, length)
    if shape == "decay":
        return np.geomspace(height, 0.05 * height, length)
    return height * (np.arange(length) % 2)


def positive_run(n_steps, slope, tremor, generator, drawn_bumps):
    """An array of positive numbers between e-30 and e30."""
    logs = slope * np.arange(n_steps) + tremor * generator.standard_normal(n_steps)
    for place, length, shape, height in drawn_bumps:
        start = place * n_steps // 1000
        logs[start : start + length] += _bump(shape, length, height)[: n_steps - start]
    return np.exp(np.clip(logs, -LARGEST_LOG, LARGEST_LOG))


def positive_runs(lengths):
    """Arrays as ``positive_run`` makes them."""
    return st.builds(positive_run, lengths, slopes, tremors, generators, bumps)


def with_odd(values, drawn):
    """A list of the values, a few of them, or several in a row, replaced by odd ones."""
    values = values.copy()
    for place, length, odd in drawn:
        start = place * len(values) // 1000
        values[start : start + length] = odd
    return values.tolist()


def runs(lengths, odd=NOT_FINITE + EXTREME):
    """Lists of numbers, in half of which some are odd."""
    replaced = st.lists(st.tuples(places, st.sampled_from([1, 1, 3, 15, 80]), st.sampled_from(odd)), max_size=3)
    return st.builds(with_odd, positive_runs(lengths), st.just([]) | replaced)
