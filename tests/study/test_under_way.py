"""The file of the runs under way: what it holds while they run, and that it is gone afterwards."""

import logging

import pytest

from stabletune.records import Progress
from stabletune.results.store import RunFolder
from stabletune.study.under_way import MOST_POINTS, MOST_POINTS_IN_ALL, RunsUnderWay
from tests.results.runs import make_spec


def progress(spec, step, **changes):
    given = {"loss": 1.0 / step, "sharpness_ratio": None, "v_hat_staleness": 2.0, "sharpness": None, "saved_step": 0}
    identity = {"number": spec.number, "purpose": spec.purpose, "seed": spec.seed, "steps": spec.steps}
    return Progress(step=step, **identity, **{**given, **changes})


@pytest.fixture
def folder(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.create({"name": "mine"})
    return folder


def test_a_run_is_there_from_its_start_to_its_end(folder):
    runs, spec = RunsUnderWay(folder, seconds=0.0), make_spec(3)
    runs.start(spec)
    runs.report(progress(spec, 10, sharpness_ratio=0.5))
    runs.report(progress(spec, 20))
    (shown,) = folder.running()["runs"]
    assert (shown["trial"], shown["step"], shown["steps"], shown["lr"]) == (3, 20, spec.steps, spec.params["lr"])
    assert shown["points"] == [[10, 0.1, 0.5, 2.0], [20, 0.05, None, 2.0]]
    runs.end(spec)
    assert folder.running()["runs"] == []


def test_two_seeds_of_one_trial_are_two_runs(folder):
    runs = RunsUnderWay(folder, seconds=0.0)
    for seed in (1, 2):
        runs.start(make_spec(3, seed=seed))
    runs.report(progress(make_spec(3, seed=2), 7))
    assert [(run["seed"], run["step"]) for run in folder.running()["runs"]] == [(1, 0), (2, 7)]


def test_a_run_that_was_ended_is_not_brought_back_by_a_late_report(folder):
    runs, spec = RunsUnderWay(folder, seconds=0.0), make_spec(3)
    runs.start(spec)
    runs.end(spec)
    runs.report(progress(spec, 10))
    assert folder.running()["runs"] == []


def test_a_long_run_keeps_few_points_from_its_first_to_its_last(folder):
    runs, spec = RunsUnderWay(folder, seconds=0.0), make_spec(0)
    runs.start(spec)
    for step in range(1, 3 * MOST_POINTS):
        runs.report(progress(spec, step))
    points = folder.running()["runs"][0]["points"]
    assert len(points) <= MOST_POINTS
    assert (points[0][0], points[-1][0]) == (1, 3 * MOST_POINTS - 1)


def test_a_peak_of_a_long_run_stays(folder):
    runs, spec = RunsUnderWay(folder, seconds=0.0), make_spec(0)
    runs.start(spec)
    for step in range(1, 5 * MOST_POINTS):
        loss, ratio = 9.0 if step == 124 else 1.0 / step, 1.5 if step == 332 else 0.5
        runs.report(progress(spec, step, loss=loss, sharpness_ratio=ratio))
    points = folder.running()["runs"][0]["points"]
    assert {124, 332} <= {point[0] for point in points}
    assert [point[0] for point in points] == sorted({point[0] for point in points})


def test_between_two_writes_there_is_time(folder):
    runs, spec = RunsUnderWay(folder, seconds=3600.0), make_spec(0)
    runs.start(spec)
    runs.report(progress(spec, 10))
    assert folder.running()["runs"][0]["step"] == 0


def test_where_it_cannot_be_written_the_search_goes_on_and_it_is_said_once(folder, caplog):
    caplog.set_level(logging.WARNING)
    folder.running_path.mkdir()
    runs = RunsUnderWay(folder, seconds=0.0)
    runs.start(make_spec(0))
    runs.start(make_spec(1))
    assert caplog.text.count("does not see runs under way") == 1


def test_one_of_many_runs_keeps_fewer_points_so_that_the_file_stays_small(folder):
    runs, specs = RunsUnderWay(folder, seconds=0.0), [make_spec(n) for n in range(200)]
    for spec in specs:
        runs.start(spec)
    for step in range(1, 120):
        runs.report(progress(specs[0], step))
    points = folder.running()["runs"][0]["points"]
    assert len(points) <= MOST_POINTS_IN_ALL // len(specs) == 50
    assert (points[0][0], points[-1][0]) == (1, 119)
