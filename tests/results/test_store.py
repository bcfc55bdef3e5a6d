from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import yaml

from stabletune.errors import OutputFolderError
from stabletune.records import Diagnosis
from stabletune.results.recommendation import Recommendation, settings_from
from stabletune.results.store import RunFolder
from tests.results.runs import PARAMS, make_episode, make_measurement, make_result, make_spec


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "runs" / "x")
    folder.create({"version": 1, "name": "x", "budget": {"trials": 3}})
    return folder


def test_naming_a_folder_writes_nothing(tmp_path: Path) -> None:
    assert not RunFolder(tmp_path / "x").exists()
    assert list(tmp_path.iterdir()) == []


def test_a_created_folder_holds_a_search_and_its_config(folder: RunFolder) -> None:
    assert folder.exists()
    assert folder.config() == {"version": 1, "name": "x", "budget": {"trials": 3}}


def test_another_search_is_never_overwritten(folder: RunFolder) -> None:
    with pytest.raises(OutputFolderError, match=r"another search.*--resume"):
        RunFolder(folder.path).create({"name": "y"})
    assert folder.config()["name"] == "x"


def test_a_users_own_config_in_the_folder_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("name: mine\n")
    with pytest.raises(OutputFolderError, match=r"config\.yaml, which a search would overwrite"):
        RunFolder(tmp_path).create({"name": "y"})
    assert (tmp_path / "config.yaml").read_text() == "name: mine\n"


def test_a_file_where_the_folder_should_be_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(OutputFolderError, match="must be a folder to write in, but got not a directory"):
        RunFolder(tmp_path / "x").create({})


def test_reading_the_config_of_a_folder_without_a_search_says_what_to_name(tmp_path: Path) -> None:
    with pytest.raises(OutputFolderError, match="Name the folder that `stabletune search` wrote"):
        RunFolder(tmp_path).config()


def test_trial_rows_come_back_as_written(folder: RunFolder) -> None:
    folder.record(make_result(make_spec(0)))
    folder.record(
        make_result(make_spec(1, lr=0.03, max_grad_norm=1.0), status="stopped", reason='a "reason",\nwrapped')
    )
    first, second = RunFolder(folder.path).trials.rows()
    assert first["trial"] == 0 and first["max_grad_norm"] is None and first["amsgrad"] is False
    assert second["lr"] == 0.03 and second["max_grad_norm"] == 1.0 and second["status"] == "stopped"
    assert second["reason"] == 'a "reason", wrapped'


def test_trials_csv_has_the_published_columns(folder: RunFolder) -> None:
    folder.record(make_result())
    header = (folder.path / "trials.csv").read_text().splitlines()[0].split(",")
    tail = "objective n_spikes worst_spike_ratio max_sharpness_ratio max_gradient_curvature_ratio v_hat_staleness"
    expected = ["trial", "status", "reason", "seed", "steps", *PARAMS, *tail.split(), "overhead", "seconds"]
    expected += ["cause", "evidence", "remedy", "version"]
    assert header == expected


def test_the_cause_of_the_worst_spike_is_in_the_row_and_all_are_in_the_folder_of_the_run(folder: RunFolder) -> None:
    whys = tuple(
        Diagnosis(step=step, cause=cause, evidence=f"{cause}, because.", remedy="Do that.")
        for step, cause in ((40, "bad batch"), (200, "schedule jump"))
    )
    episodes = (make_episode(40, worst_ratio=2.0), make_episode(200, worst_ratio=9.0))
    norms = np.linspace(1.0, 2.0, 500)
    folder.record(make_result(make_spec(3), episodes=episodes, diagnoses=whys, gradient_norms=norms))
    (row,) = folder.trials.rows()
    assert (row["cause"], row["evidence"], row["remedy"]) == ("schedule jump", "schedule jump, because.", "Do that.")
    lines = (folder.run_path(3) / "diagnoses.jsonl").read_text().splitlines()
    assert [json.loads(line)["cause"] for line in lines] == ["bad batch", "schedule jump"]
    assert np.load(folder.run_path(3) / "steps.npz")["gradient_norms"] == pytest.approx(norms)


def test_a_proof_run_goes_to_confirmations_with_its_own_curves(folder: RunFolder) -> None:
    folder.record(make_result(make_spec(7, purpose="confirmation", seed=11)))
    folder.record(make_result(make_spec(0, purpose="baseline", seed=11), episodes=(make_episode(40),)))
    rows = folder.confirmations.rows()
    assert [(row["candidate"], row["purpose"], row["seed"], row["n_spikes"]) for row in rows] == [
        (7, "confirmation", 11, 0),
        (0, "baseline", 11, 1),
    ]
    assert folder.trials.rows() == []
    assert folder.curves(7, seed=11) is not None and folder.curves(7) is None


def test_a_trial_written_twice_replaces_the_first(folder: RunFolder) -> None:
    folder.record(make_result(make_spec(0), status="failed", objective=None, traceback="boom", losses=np.ones(2)))
    folder.record(make_result(make_spec(1)))
    folder.record(make_result(make_spec(0), objective=0.25))
    assert [(row["trial"], row["objective"]) for row in folder.trials.rows()] == [(0, 0.25), (1, 0.5)]
    assert not (folder.run_path(0) / "traceback.txt").exists()


def test_curves_come_back_and_jsonl_holds_no_nan(folder: RunFolder) -> None:
    measurements = (
        make_measurement(10, sharpness_ratio=0.5),
        make_measurement(20, loss=math.inf, sharpness_ratio=math.nan, has_converged=True),
    )
    folder.record(make_result(measurements=measurements, episodes=(make_episode(12),)))
    curves = folder.curves(0)
    assert curves is not None and curves.losses.dtype == np.float64 and curves.losses.size == 500
    assert [row["start"] for row in curves.episodes] == [12]
    steps, values = curves.series("sharpness_ratio")
    assert steps.tolist() == [10] and values.tolist() == [0.5]
    lines = (folder.run_path(0) / "measurements.jsonl").read_text().splitlines()
    last = json.loads(lines[1], parse_constant=lambda name: pytest.fail(name))
    assert last["version"] == 1 and last["loss"] is None and last["sharpness_ratio"] is None


def test_a_row_summarizes_the_measurements(folder: RunFolder) -> None:
    measurements = (
        make_measurement(1, sharpness_ratio=0.9, v_hat_staleness=4.0),
        make_measurement(2, sharpness_ratio=0.7, gradient_curvature_ratio=0.2),
    )
    folder.record(make_result(measurements=measurements, episodes=(make_episode(1), make_episode(90, worst_ratio=9.0))))
    (row,) = folder.trials.rows()
    assert row["max_sharpness_ratio"] == 0.9 and row["v_hat_staleness"] == 4.0
    assert row["max_gradient_curvature_ratio"] == 0.2
    assert row["n_spikes"] == 2 and row["worst_spike_ratio"] == 9.0


def test_analysis_comes_back_without_non_finite_numbers(folder: RunFolder) -> None:
    assert folder.analysis() == {}
    folder.write_analysis({"outcome": "done", "shares": {"lr": 0.7, "beta2": math.nan}})
    assert folder.analysis() == {"outcome": "done", "shares": {"lr": 0.7, "beta2": None}, "version": 1}


def test_the_recommendation_is_absent_until_saved(folder: RunFolder) -> None:
    assert folder.recommendation() is None
    Recommendation(settings_from(PARAMS, "constant")).save(folder.recommendation_path)
    recommendation = folder.recommendation()
    assert recommendation is not None and recommendation.settings["beta2"] == 0.999


def test_no_temporary_file_stays_behind(folder: RunFolder) -> None:
    folder.record(make_result())
    assert [path for path in folder.path.rglob("*") if path.name.startswith(".")] == []


def test_every_yaml_file_carries_a_version(folder: RunFolder) -> None:
    assert yaml.safe_load((folder.path / "config.yaml").read_text())["version"] == 1


def test_discarding_removes_the_search_and_leaves_other_files(folder: RunFolder) -> None:
    folder.record(make_result())
    (folder.path / "notes.txt").write_text("mine")
    folder.discard()
    assert [path.name for path in folder.path.iterdir()] == ["notes.txt"]
    assert not folder.exists()


def test_discarding_removes_a_folder_that_held_nothing_else(folder: RunFolder) -> None:
    folder.discard()
    assert not folder.path.exists()
