"""What the page is told: bounded however long a file is, and drawn by the rule that the report has."""

import json
import tracemalloc

import numpy as np
import pytest

from stabletune.dashboard.state import StateReader, read_state
from stabletune.monitor.alerts.folder_sink import FolderSink
from stabletune.records import Alert
from tests.results.report.studies import unfinished_study
from tests.results.runs import make_result, make_spec

N_LINES = 200_000
PEAK = 123_457


def measurement(step):
    ratio = 3.75 if step == PEAK else 0.9
    return json.dumps({"step": step, "loss": 1.0 + 1.0 / step, "sharpness_ratio": ratio, "v_hat_staleness": 2.0}) + "\n"


def test_a_file_of_200_000_lines_gives_a_bounded_state_with_its_peak_and_goes_on(tmp_path):
    path = tmp_path / "measurements.jsonl"
    path.write_text("".join(map(measurement, range(1, N_LINES + 1))))
    reader = StateReader(tmp_path)
    state = reader.read()
    assert len(json.dumps(state)) < 150_000
    run = state["runs"][0]
    for name in ("loss", "sharpness_ratio", "v_hat_staleness"):
        assert len(run[name][0]) <= 600
        assert (run[name][0][0], run[name][0][-1]) == (1, N_LINES)
    assert run["sharpness_ratio"][1][run["sharpness_ratio"][0].index(PEAK)] == 3.75
    with path.open("a") as file:
        file.write(measurement(N_LINES + 1) + measurement(N_LINES + 2)[:9])
    assert reader.read()["runs"][0]["loss"][0][-1] == N_LINES + 1
    assert reader.read()["step"] == N_LINES + 1


def test_what_is_kept_in_memory_does_not_grow_with_the_file(tmp_path):
    path = tmp_path / "measurements.jsonl"
    path.touch()
    reader, held = StateReader(tmp_path), []
    tracemalloc.start()
    for block in range(3):
        with path.open("a") as file:
            file.writelines(measurement(step) for step in range(1 + block * 5000, 1 + (block + 1) * 5000))
        reader.read()
        held.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert max(held) < 1e6


def test_a_training_that_went_back_to_a_checkpoint_is_shown_once_and_calm(tmp_path):
    first = FolderSink(tmp_path)
    for step in range(10, 160, 10):
        first.observe(step, float(step), None)
    first(Alert(step=150, level="spiked", previous="calm", message="m", loss=150.0))
    again = FolderSink(tmp_path, goes_on=True)
    for step in range(101, 131):
        again.observe(step, -1.0, None)
    state = read_state(tmp_path)
    steps, losses = state["runs"][0]["loss"]
    assert steps == [*range(10, 110, 10), 110, 120, 130]
    assert losses[-3:] == [-1.0, -1.0, -1.0]
    assert state["level"] == "calm"
    assert state["alerts"][0]["message"] == "step 101: goes on, and is judged anew."


def test_the_newest_alerts_are_listed_and_every_spike_is_marked(tmp_path):
    sink = FolderSink(tmp_path)
    for step in range(1, 501):
        level = "spiked" if step % 5 == 0 else "calm"
        sink(Alert(step=step, level=level, previous="calm", message="m", loss=float(step)))
    state = read_state(tmp_path)
    assert [alert["step"] for alert in state["alerts"]] == list(range(500, 300, -1))
    assert state["level"] == "spiked"
    assert state["runs"][0]["spikes"] == [list(range(5, 501, 5)), list(range(5, 501, 5))]


@pytest.mark.parametrize(("lowest", "is_log"), [(0.5, True), (0.0, False), (-3.0, False)])
def test_a_loss_at_or_below_zero_is_drawn_on_a_linear_axis(tmp_path, lowest, is_log):
    lines = [{"step": step, "loss": loss} for step, loss in ((1, 3.0), (2, lowest))]
    (tmp_path / "measurements.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_state(tmp_path)["axes"]["loss"] == {"log": is_log, "edge": None}


def test_a_spike_marked_below_zero_makes_the_axis_linear_too(tmp_path):
    FolderSink(tmp_path)(Alert(step=3, level="spiked", previous="calm", message="m", loss=-1.0))
    assert not read_state(tmp_path)["axes"]["loss"]["log"]


def test_one_trial_with_a_negative_loss_makes_the_axis_of_a_search_linear(tmp_path):
    folder = unfinished_study(tmp_path / "run", n_trials=2)
    assert read_state(tmp_path / "run")["axes"]["loss"]["log"]
    folder.record(make_result(make_spec(2), losses=np.array([2.0, -1.0])))
    assert not read_state(tmp_path / "run")["axes"]["loss"]["log"]
