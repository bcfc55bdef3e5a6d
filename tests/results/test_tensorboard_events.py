"""Event files, read back with TensorBoard's own reader."""

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from stabletune.results.tensorboard_events import POINTS, write_events
from tests.results.runs import make_measurement, make_result, make_spec
from tests.study.running import run


def scalars(folder):
    found = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_losses_and_readings_come_back_and_what_is_not_finite_is_left_out(tmp_path):
    losses = np.array([2.0, 1.0, np.nan, 0.5])
    measurements = (make_measurement(2, sharpness_ratio=0.75, v_hat_staleness=None),)
    write_events(tmp_path, make_result(make_spec(1), losses=losses, measurements=measurements))
    found = scalars(tmp_path)
    assert found["loss"] == [(1, 2.0), (2, 1.0), (4, 0.5)]
    assert found["sharpness_ratio"] == [(2, 0.75)]
    assert "v_hat_staleness" not in found


def test_a_long_run_keeps_its_peak_and_not_every_step(tmp_path):
    losses = np.ones(20_000)
    losses[12_345] = 9.0
    write_events(tmp_path, make_result(make_spec(1), losses=losses))
    found = scalars(tmp_path)["loss"]
    assert len(found) <= POINTS
    assert (12_346, 9.0) in found


def test_a_second_attempt_takes_the_place_of_the_first(tmp_path):
    write_events(tmp_path, make_result(make_spec(1), losses=np.ones(3)))
    write_events(tmp_path, make_result(make_spec(1), losses=np.full(2, 4.0)))
    assert scalars(tmp_path)["loss"] == [(1, 4.0), (2, 4.0)]


@pytest.mark.parametrize("wanted", [True, False])
def test_a_search_writes_them_for_every_run_if_asked_to(write_config, tmp_path, wanted):
    run(write_config(("budget:", f"tensorboard: {str(wanted).lower()}\nbudget:")), tmp_path / "out")
    names = {path.name for path in (tmp_path / "out" / "tensorboard").glob("*")}
    assert bool(names) == wanted
    if wanted:
        assert {"trial-0000", "trial-0005", "baseline-0000-1"} <= names
        assert len(scalars(tmp_path / "out" / "tensorboard" / "trial-0000")["loss"]) == 60
