"""What becomes of a run folder that was cut, edited or belongs to somebody else: a line that names the file."""

import json
import subprocess
import sys

import numpy as np
import pytest
import yaml

from stabletune.dashboard.state import read_state
from stabletune.errors import OutputFolderError
from stabletune.results.exporters import export
from stabletune.results.recommendation import Recommendation
from stabletune.results.report import write_report
from stabletune.results.store import RunFolder
from tests.results.report.studies import finished_study


@pytest.fixture
def folder(tmp_path):
    return finished_study(tmp_path / "run")


def cut(path, size):
    path.write_bytes(path.read_bytes()[:size])


def damage(name, change):
    """A test case: what is done to a file of the folder, and the file that the message must name."""
    return pytest.param(name, change, id=f"{name} {change.__name__}")


def halved(path):
    cut(path, path.stat().st_size // 2)


def one_byte(path):
    cut(path, 1)


def binary(path):
    path.write_bytes(bytes(range(256)) * 4)


def deep(path):
    path.write_text("[" * 100_000)


def a_list(path):
    path.write_text("[1, 2]\n")


def a_folder(path):
    path.unlink(missing_ok=True)
    path.mkdir()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        damage("trials/0007/seed-0001/measurements.jsonl", halved),
        damage("trials/0007/seed-0001/measurements.jsonl", binary),
        damage("trials/0007/seed-0001/measurements.jsonl", a_list),
        damage("trials/0007/seed-0001/measurements.jsonl", a_folder),
        damage("trials/0007/seed-0001/losses.npy", halved),
        damage("trials/0007/seed-0001/losses.npy", one_byte),
        damage("trials.csv", binary),
        damage("trials.csv", a_folder),
        damage("confirmations.csv", binary),
        damage("analysis.json", halved),
        damage("analysis.json", deep),
        damage("analysis.json", a_list),
        damage("analysis.json", a_folder),
        damage("recommended.yaml", deep),
        damage("recommended.yaml", binary),
        damage("config.yaml", deep),
    ],
)
def test_a_damaged_file_is_named_in_one_line(folder, name, change):
    if name == "analysis.json":
        folder.write_analysis({"ending": "recommended"})
    change(folder.path / name)
    with pytest.raises(OutputFolderError, match=name.rpartition("/")[2]):
        write_report(folder)


@pytest.mark.parametrize("column", ["trial", "status", "reason", "objective", "n_spikes", "max_sharpness_ratio"])
def test_a_table_without_a_column_is_refused_by_its_name(folder, column):
    path = folder.path / "trials.csv"
    path.write_text(path.read_text().replace(column, "other", 1))
    with pytest.raises(OutputFolderError, match=f"but lacks {column}"):
        write_report(folder)
    with pytest.raises(OutputFolderError, match=f"but lacks {column}"):
        read_state(folder.path)


def test_a_table_that_a_spreadsheet_saved_is_read(folder):
    path = folder.path / "trials.csv"
    before = folder.trials.rows()
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert RunFolder(folder.path).trials.rows() == before


@pytest.mark.parametrize("cell", ["abc", "-inf", "1e30", "true"])
def test_a_number_of_a_trial_that_is_none_is_refused_with_its_line(folder, cell):
    path = folder.path / "trials.csv"
    lines = path.read_text().split("\n")
    lines[2] = cell + lines[2][lines[2].index(",") :]
    path.write_text("\n".join(lines))
    with pytest.raises(OutputFolderError, match=r"trials\.csv:3: trial must be a whole number"):
        write_report(folder)


@pytest.mark.parametrize(
    "content", [{"front": [0]}, {"stability_map": {"y": [1]}}, {"importance": {"objective": 1e30}}], ids=str
)
def test_an_analysis_of_another_shape_is_a_clear_error(folder, content):
    folder.write_analysis(content)
    with pytest.raises(
        OutputFolderError, match=r"drawing them gave .* analysis\.json and comparison\.json may be deleted"
    ):
        write_report(folder)


def test_no_value_of_any_file_becomes_markup(folder):
    evil = "<script>alert(1)</script>"
    arm = {"n_spiky": evil, "spiky_rate_upper": 0.5, "objective": 1.0}
    arms = {"recommended": arm, "baseline": arm, "ratio": None, "steps_to_baseline": None}
    folder.write_comparison({**arms, "n_seeds": 5, "steps": 10, "metric": evil})
    point = {"trial": evil, "settings": {evil: evil}, "is_recommended": False, "objective": 1.0, "clean_rate": 0.5}
    folder.write_analysis({"front": [{**point, "n_proven": evil}], "outcome": evil})
    assert evil not in write_report(folder).read_text(encoding="utf-8")


@pytest.mark.parametrize("tool", ["torch", "optax", "huggingface", "lightning"])
def test_no_value_of_a_recommendation_becomes_code(folder, tool):
    path = folder.recommendation_path
    content = yaml.safe_load(path.read_text())
    content["provenance"]["stabletune"] = "0.1\nraise SystemExit(7)\n#"
    content["evidence"]["spiky_runs"] = "0\nraise SystemExit(8)\n#"
    content["provenance"]["restated"] = ["a\rraise SystemExit(9)\r#"]
    path.write_text(yaml.safe_dump(content))
    code = export(Recommendation.load(path), tool)
    assert not any(line.strip().startswith("raise") for line in code.splitlines())


def command(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "stabletune.cli", *map(str, arguments)], capture_output=True, env=environment or None
    )


def test_a_file_that_may_not_be_written_is_one_line_and_exit_code_2(folder):
    folder.report_path.unlink(missing_ok=True)
    folder.report_path.mkdir()
    done = command("report", folder.path)
    assert done.returncode == 2
    assert b"report.html" in done.stderr and b"Traceback" not in done.stderr


def test_a_name_too_long_for_a_file_is_one_line_and_exit_code_2():
    done = command("report", "x" * 5000)
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr


def test_a_folder_whose_name_no_terminal_can_show_has_its_report(tmp_path):
    folder = finished_study(tmp_path / "ünï cödé")
    done = command("report", folder.path, PYTHONIOENCODING="ascii", PATH="/usr/bin", HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert folder.report_path.exists()


def test_half_a_run_under_way_is_named(folder):
    folder.running_path.write_text(json.dumps({"runs": [1, 2]}))
    with pytest.raises(OutputFolderError, match=r"running\.json: must list runs as a search writes them"):
        read_state(folder.path)


def test_losses_are_never_unpickled(folder):
    np.save(
        folder.path / "trials" / "0007" / "seed-0001" / "losses.npy",
        np.array([{"a": 1}], dtype=object),
        allow_pickle=True,
    )
    with pytest.raises(OutputFolderError, match=r"losses\.npy: must be the losses of a run"):
        write_report(folder)
