"""What a job is sent holds where it arrives: relative paths, files from elsewhere, an earlier run, its lessons."""

import io
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
import textwrap
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stabletune.cli import app
from stabletune.config import load_config
from stabletune.errors import JobError, ResourceError
from stabletune.results.store import RunFolder
from stabletune.submission.archive import pack_run, unpack_run
from stabletune.submission.sending import prepare, with_lessons

ROOT = Path(__file__).resolve().parents[2]
WORKLOAD = "def build(seed, device):\n    pass\n"
CONFIG = """
    version: 1
    name: mine
    workload: {workload}:build
    search_space: {{lr: {{low: 1.0e-3, high: 1.0e-1, scale: log}}}}
    resources: {{address: local, cpus_per_trial: 2}}
"""


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))
    return path


def sent(config, tmp_path, run=None):
    """The config as it reads on another machine, and the files beside it."""
    target, elsewhere = tmp_path / "target", tmp_path / "elsewhere"
    target.mkdir()
    prepare(load_config(config), "job-1", target, run)
    shutil.move(target, elsewhere)
    shutil.rmtree(config.parent)
    files = {path.relative_to(elsewhere).as_posix() for path in elsewhere.rglob("*") if path.is_file()}
    return load_config(elsewhere / "job-1.yaml"), files


def test_the_configs_folder_arrives_with_its_layout(tmp_path):
    config = write(tmp_path / "mine" / "config.yaml", CONFIG.format(workload="source/workload.py"))
    write(tmp_path / "mine" / "source" / "workload.py", WORKLOAD)
    write(tmp_path / "mine" / "data" / "rows.txt", "1\n")
    found, files = sent(config, tmp_path)
    assert files == {"job-1.yaml", "config.yaml", "source/workload.py", "data/rows.txt"}
    assert found.workload.file == tmp_path / "elsewhere" / "source" / "workload.py"
    assert (found.resources.address, found.resources.cpus_per_trial) == ("auto", 2)


def test_the_output_folder_is_not_sent_with_the_configs(tmp_path):
    config = write(tmp_path / "mine" / "config.yaml", CONFIG.format(workload="workload.py"))
    write(tmp_path / "mine" / "workload.py", WORKLOAD)
    write(tmp_path / "mine" / "results" / "trials.csv", "trial\n")
    config.write_text(f"{config.read_text()}output: {config.parent / 'results'}\n")
    _, files = sent(config, tmp_path)
    assert files == {"workload.py", "config.yaml", "job-1.yaml"}


def test_an_output_folder_that_holds_the_config_too_keeps_back_only_what_a_search_writes(tmp_path):
    config = write(tmp_path / "mine" / "mine.yaml", CONFIG.format(workload="source/workload.py"))
    write(tmp_path / "mine" / "source" / "workload.py", WORKLOAD)
    write(tmp_path / "mine" / "trials" / "0000" / "measurements.jsonl", "{}\n")
    write(tmp_path / "mine" / "submission.json", "{}\n")
    config.write_text(f"{config.read_text()}output: {config.parent}\n")
    _, files = sent(config, tmp_path)
    assert files == {"source/workload.py", "mine.yaml", "job-1.yaml"}


def test_a_password_written_out_in_the_config_is_in_no_file_that_is_sent(tmp_path):
    config = write(tmp_path / "mine" / "config.yaml", CONFIG.format(workload="workload.py"))
    write(tmp_path / "mine" / "workload.py", WORKLOAD)
    config.write_text(f"{config.read_text()}storage: postgresql://me:hunter2@db/studies\n")
    found, _ = sent(config, tmp_path)
    assert found.storage == "postgresql://me:***@db/studies"
    texts = [path.read_text() for path in (tmp_path / "elsewhere").rglob("*") if path.is_file()]
    assert not any("hunter2" in text for text in texts)


def test_a_workload_above_its_config_arrives_with_the_same_layout(tmp_path):
    config = write(tmp_path / "mine" / "configs" / "config.yaml", CONFIG.format(workload="../workload.py"))
    write(tmp_path / "mine" / "workload.py", WORKLOAD)
    found, files = sent(config, tmp_path)
    assert files == {"workload.py", "configs/config.yaml", "job-1.yaml"}
    assert found.workload.file == tmp_path / "elsewhere" / "workload.py"
    beside = load_config(tmp_path / "elsewhere" / "configs" / "config.yaml")
    assert beside.workload.file == found.workload.file


def test_a_workload_from_elsewhere_arrives_with_its_own_folder(tmp_path):
    config = write(tmp_path / "mine" / "config.yaml", CONFIG.format(workload=tmp_path / "code" / "workload.py"))
    write(tmp_path / "code" / "workload.py", WORKLOAD)
    write(tmp_path / "code" / "beside.py", "")
    found, files = sent(config, tmp_path)
    assert {"job-1-workload/workload.py", "job-1-workload/beside.py"} < files
    assert found.workload.file == tmp_path / "elsewhere" / "job-1-workload" / "workload.py"


def test_a_workload_that_reads_its_config_finds_what_it_says_now(tmp_path):
    config = write(tmp_path / "mine" / "config.yaml", CONFIG.format(workload="workload.py"))
    write(tmp_path / "mine" / "workload.py", WORKLOAD)
    (tmp_path / "target").mkdir()
    prepare(load_config(config, overrides=("budget.trials=7",)), "job-1", tmp_path / "target", None)
    there = load_config(tmp_path / "target" / "config.yaml")
    assert (there.budget.trials, there.workload.file) == (7, tmp_path / "target" / "workload.py")


def test_a_run_to_go_on_with_takes_no_other_file_of_its_folder_along(tmp_path):
    """A second config with a password, where the output folder holds the user's files too."""
    config = write(tmp_path / "mine" / "mine.yaml", CONFIG.format(workload="workload.py"))
    write(tmp_path / "mine" / "workload.py", WORKLOAD)
    write(tmp_path / "mine" / ".env", "PASSWORD=hunter2\n")
    config.write_text(f"{config.read_text()}output: {config.parent}\n")
    run = RunFolder(config.parent)
    run.create(load_config(config).resolved())
    sent(config, tmp_path, run)
    with tarfile.open(tmp_path / "elsewhere" / "job-1.tar.gz") as tar:
        assert tar.getnames() == ["config.yaml", "trials"]


def test_a_built_in_workload_needs_no_files(write_config, tmp_path):
    config = write_config()
    (tmp_path / "large.bin").touch()
    target = tmp_path / "target"
    target.mkdir()
    prepare(load_config(config), "job-1", target, None)
    assert [path.name for path in target.iterdir()] == ["job-1.yaml"]


def test_a_workload_that_is_left_out_is_refused(tmp_path):
    config = write(tmp_path / "mine" / "config.yaml", CONFIG.format(workload="build/workload.py"))
    write(tmp_path / "mine" / "build" / "workload.py", WORKLOAD)
    with pytest.raises(ResourceError, match=r"build/workload\.py is left out by its name or by \.rayignore"):
        sent(config, tmp_path)


@pytest.fixture
def searched(write_config, tmp_path):
    config = write_config(("trials: 6", "trials: 3"))
    done = CliRunner().invoke(app, ["search", str(config), "--output", str(tmp_path / "first"), "--executor", "inline"])
    assert done.exit_code == 0
    return config, RunFolder(tmp_path / "first")


def test_a_run_arrives_byte_for_byte(searched, tmp_path):
    _, run = searched
    pack_run(run.path.iterdir(), tmp_path / "run.tar.gz")
    unpack_run(tmp_path / "run.tar.gz", tmp_path / "there")

    def content(folder):
        return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    assert content(tmp_path / "there") == content(run.path)


@pytest.mark.parametrize("name", ["../out", "/{tmp_path}/out", "trials/../../out", "link", "pipe"])
def test_an_archive_with_anything_but_files_and_folders_of_a_run_is_refused(tmp_path, name):
    member = tarfile.TarInfo(name.format(tmp_path=tmp_path))
    member.type = {"link": tarfile.SYMTYPE, "pipe": tarfile.FIFOTYPE}.get(name, tarfile.REGTYPE)
    member.linkname = "config.yaml"
    with tarfile.open(tmp_path / "run.tar.gz", "w:gz") as tar:
        tar.addfile(member, io.BytesIO())
    with pytest.raises(JobError, match=r"run\.tar\.gz: must hold files and folders of a run only, but holds"):
        unpack_run(tmp_path / "run.tar.gz", tmp_path / "there")
    assert not (tmp_path / "out").exists() and list((tmp_path / "there").iterdir()) == []


@pytest.mark.parametrize("job_id", ["{tmp_path}/mine", "..", ".", "", "stabletune-x/../../mine", "raysubmit_1"])
@pytest.mark.parametrize("step", ["hand-out", "take-up"])
def test_what_is_no_id_of_a_job_is_neither_packed_nor_deleted(tmp_path, step, job_id):
    kept = write(tmp_path / "mine" / "kept.txt", "1\n")
    asked = CliRunner().invoke(app, ["job", step, job_id.format(tmp_path=tmp_path)])
    assert asked.exit_code == 2
    assert "job: must have an id like stabletune-NAME-1a2b3c4d, but got" in asked.stderr
    assert kept.exists()


def test_a_job_that_is_sent_again_keeps_what_it_has_and_refuses_another_config(searched, tmp_path):
    """An older state of its run was sent along."""
    config, run = searched
    home, here = tmp_path / "home", tmp_path / "here"
    there = home / ".stabletune" / "jobs" / "stabletune-mine-1"
    shutil.copytree(run.path, there)
    RunFolder(there).write_config(load_config(config, overrides=("resources.address=auto",)).resolved())
    rows = RunFolder(there).trials.rows()
    run.trials.rewrite(rows[:1])
    here.mkdir()
    prepare(load_config(config), "stabletune-mine-1", here, run)

    def take_up():
        command = [sys.executable, "-m", "stabletune.cli", "job", "take-up", "stabletune-mine-1"]
        environment = {**os.environ, "HOME": str(home), "PYTHONPATH": str(ROOT)}
        return subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True)

    done = take_up()
    assert done.stdout == "going on with the run of stabletune-mine-1\n", done.stderr
    assert RunFolder(there).trials.rows() == rows
    prepare(load_config(config, overrides=("seed=5",)), "stabletune-mine-1", here, None)
    refused = take_up()
    assert (refused.returncode, "but got other values for seed." in refused.stderr) == (2, True)
    shutil.rmtree(there)
    prepare(load_config(config), "stabletune-mine-1", here, run)
    assert take_up().returncode == 0
    assert (RunFolder(there).trials.rows(), RunFolder(there).config()["resources"]["address"]) == (rows[:1], "auto")


HAND_OUT = """
import pathlib, sys
from stabletune.submission.on_head import hand_out

print(hand_out("stabletune-mine-1", pathlib.Path(sys.argv[1])))
"""


def test_a_run_that_was_handed_out_is_there_for_a_head_that_was_started_anew(searched, tmp_path):
    """Whose logs are elsewhere."""
    _, run = searched
    there = tmp_path / "home" / ".stabletune" / "jobs" / "stabletune-mine-1"
    shutil.copytree(run.path, there)
    for logs in (tmp_path / "logs", tmp_path / "new_logs"):
        logs.mkdir()
        environment = {**os.environ, "HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
        parcel = json.loads(subprocess.check_output([sys.executable, "-c", HAND_OUT, logs], env=environment))
        unpack_run(logs / parcel["file"], logs / "run")
        assert RunFolder(logs / "run").trials.rows() == run.trials.rows()
    assert RunFolder(there).trials.rows() == run.trials.rows()


def test_a_run_that_is_too_large_to_be_sent_is_refused(searched, tmp_path):
    config, run = searched
    (run.path / "trials" / "0000" / "losses.npy").write_bytes(random.Random(0).randbytes(100 * 2**20))
    (tmp_path / "target").mkdir()
    with pytest.raises(ResourceError, match=r"at most 99 MiB .* there are 10\d, .* has 10\d\. Go on with the run on a"):
        prepare(load_config(config), "job-1", tmp_path / "target", run)


def test_what_earlier_searches_teach_is_sent_without_their_folders(searched, tmp_path):
    config, run = searched
    overrides = [f"warm_start=[{run.path}]"]
    later = load_config(config, overrides=overrides, output=tmp_path / "second")
    begun = with_lessons(later, tmp_path / "begun")
    recommended = run.proven_recommendation().settings["lr"]
    run.discard()
    arguments = ["search", str(config), "--set", *overrides, "--set", f"output={tmp_path / 'begun'}"]
    done = CliRunner().invoke(app, [*arguments, "--resume", "--executor", "inline"])
    assert done.exit_code == 0, done.stderr
    assert begun.trials.rows()[1]["lr"] == recommended
