"""One rule for the axes of the report and of the dashboard."""

import math

import numpy as np
import pytest

from stabletune.results.curves import Curves
from stabletune.results.report.axes import is_logarithmic
from stabletune.results.report.charts import Run, loss_chart, stability_chart


@pytest.mark.parametrize(
    ("field", "series", "expected"),
    [
        ("loss", [], True),
        ("loss", [[1.0, math.nan, math.inf], []], True),
        ("loss", [[1.0], [2.0, 0.0]], False),
        ("loss", [[1.0, -math.inf]], True),
        ("v_hat_staleness", [[3.0, -1.0]], False),
        ("sharpness_ratio", [[0.5, 4.9]], False),
        ("sharpness_ratio", [[0.5], [5.1]], True),
        ("sharpness_ratio", [[0.0], [5.1]], False),
    ],
)
def test_an_axis_is_logarithmic_where_it_draws_every_finite_value(field, series, expected):
    assert is_logarithmic(field, series) is expected


def run_of(losses, *, episodes=(), **readings):
    measurements = [
        {"step": step, **{name: values[step - 1] for name, values in readings.items()}}
        for step in range(1, 1 + max(map(len, readings.values()), default=0))
    ]
    return Run("baseline", "baseline, seed 1", Curves(np.asarray(losses), tuple(measurements), tuple(episodes)))


def test_a_loss_below_zero_is_drawn_on_a_linear_axis():
    assert loss_chart([run_of([3.0, 1.0])])["axes"][0]["log"]
    assert not loss_chart([run_of([3.0, 1.0]), run_of([3.0, -1.0])])["axes"][0]["log"]


def test_each_signal_has_its_own_axis():
    chart = stability_chart([run_of([1.0, 1.0], sharpness_ratio=[0.5, 9.0], v_hat_staleness=[0.0, 2.0])])
    assert [axis["log"] for axis in chart["axes"]] == [True, False]
    assert [trace["axis"] for trace in chart["traces"]] == [1, 2]


def test_a_mark_stands_at_the_peak_of_its_spike():
    episode = {"start": 3, "end": 6}
    chart = loss_chart([run_of([1.0, 1.0, 2.0, 7.0, 5.0, 3.0, 1.0], episodes=[episode])])
    (mark,) = [trace for trace in chart["traces"] if trace.get("is_mark")]
    assert (mark["x"], mark["y"]) == ([4], [7.0])
