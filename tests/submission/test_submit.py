"""A search as a job of a real Ray head: files arrive, results come back, whoever is cut off on the way."""

import csv
import json
import pathlib
import re
import signal
import subprocess
import sys
import textwrap
import urllib.request
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
import yaml

from stabletune.submission.note import Note
from tests.study.sharing.postgres import Server, find_initdb

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ROOT = pathlib.Path(__file__).resolve().parents[2]
WORKLOAD = """
    import pathlib, threading, torch, stabletune
    from beside import SCALE

    def build(seed, device):
        assert "working_dir_files" in __file__, __file__
        with open(pathlib.Path.home() / "built", "a") as built:
            built.write("x")
            n_built = built.tell()
        if n_built > 1 and not (pathlib.Path.home() / "is_open").exists():
            threading.Event().wait()
        here = pathlib.Path(__file__).parent
        rows = [float(row) for row in (here.parent / "data" / "targets.txt").read_text().split()]
        model = torch.nn.Linear(4, 1)
        return stabletune.Training(
            model=model, loss_fn=lambda m, b: (m(b[0]) - SCALE * b[1]).square().mean(),
            batches=[(torch.randn(len(rows), 4), torch.tensor(rows).unsqueeze(1))],
        )
"""
OBSTRUCTION = """
    import pathlib
    from stabletune.trial.workloads.quadratic import build

    def obstruct(seed, device):
        for trials in (pathlib.Path.home() / ".stabletune" / "jobs").glob("*/trials"):
            if not (trials / "0002").exists():  # those of jobs that are over stay
                (trials / "0002" / "losses.npy" / "full").mkdir(parents=True)
        return build(seed, device, jitter=0.1, curvatures=[1.0, 30.0])
"""
SHARED = """
    version: 1
    name: joined
    workload: quadratic
    search_space: {lr: {low: 1.0e-3, high: 1.0e-1, scale: log}}
    budget: {trials: 3, trial_steps: 60, full_steps: 150, confirm_seeds: 1}
    storage: STORAGE
"""
CONFIG = """
    version: 1
    name: mine
    workload: source/workload.py:build
    search_space: spaces/mine.yaml
    budget: {trials: 4, trial_steps: 40, full_steps: 60, confirm_seeds: 1}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    files = {
        "source/workload.py": WORKLOAD,
        "source/beside.py": "SCALE = 1.0\n",
        "data/targets.txt": "1.0\n-0.5\n0.25\n2.0\n",
        "spaces/mine.yaml": "lr: {low: 1.0e-3, high: 1.0e-1, scale: log}\n",
        "config.yaml": CONFIG,
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(textwrap.dedent(text))
    return folder


@pytest.fixture(scope="module")
def submit(head, environment, project):
    """Starts `stabletune submit` from the project's folder; with ``until`` it is left when a line matches that."""

    def run(*arguments, until=None, then=None, address=head):
        command = [sys.executable, "-m", "stabletune.cli", "submit", *map(str, arguments), "--address", address]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with subprocess.Popen(command, cwd=project, env=environment, **pipes) as process:
            try:
                above = ""
                while until is not None and not re.search(until, above):
                    line = process.stderr.readline()
                    assert line, above
                    above += line
                if then is not None:
                    then(process, above)
                stdout, stderr = process.communicate()
            finally:
                process.kill()  # one that has ended is left alone
        return SimpleNamespace(code=process.returncode, stdout=stdout, stderr=above + stderr)

    return run


def rows_of(folder):
    with (folder / "trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def job_in(text):
    return re.search(r"job (stabletune-\S+) at", text)[1]


@pytest.fixture(scope="module")
def story(submit, head, environment, project):
    """Ctrl-C, a new start that is refused, a return to the job, which another hand stops, and a new job.

    From the third trial on the workload waits to be stopped, until it is opened.
    """
    out = project / "out"

    def press_ctrl_c(process, above):
        process.send_signal(signal.SIGINT)

    def stop_the_job(process, above):
        from ray.job_submission import JobSubmissionClient

        JobSubmissionClient(head).stop_job(job_in(above))

    left = submit("config.yaml", "--output", "out", until=r"search: 4 trials", then=press_ctrl_c)
    files_then = sorted(path.name for path in out.iterdir())
    refused = submit("config.yaml", "--output", "out")
    stopped = submit("config.yaml", "--output", "out", "--resume", until=r"\n\d: lr", then=stop_the_job)
    (pathlib.Path(environment["HOME"]) / "is_open").touch()
    rows_then = rows_of(out)
    ended = submit("config.yaml", "--output", "out", "--resume", "--quiet", "--json")
    again = submit("config.yaml", "--output", "out")
    return SimpleNamespace(
        out=out, left=left, files_then=files_then, refused=refused, stopped=stopped, rows_then=rows_then, ended=ended,
        again=again,
    )  # fmt: skip


def test_ctrl_c_leaves_the_job_and_says_how_to_come_back_and_how_to_stop_it(story, head):
    job = job_in(story.left.stderr)
    assert story.left.code == 130
    assert story.files_then == ["submission.json"]
    assert f"job {job} goes on." in story.left.stderr
    assert f"--address {head} --output {story.out} --resume`" in story.left.stderr
    assert f"`ray job stop {job} --address {head}`" in story.left.stderr


def test_ctrl_c_repeats_settings_without_their_passwords(submit, project):
    """The job itself waits for a database in vain."""

    def press_ctrl_c(process, above):
        process.send_signal(signal.SIGINT)

    study = "storage=postgresql+psycopg://me:hunter2@127.0.0.1:9/none"
    left = submit("config.yaml", "--output", "hidden", "--set", study, until=r"job \S+ at", then=press_ctrl_c)
    assert left.code == 130
    assert "--set 'storage=postgresql+psycopg://me:***@127.0.0.1:9/none' --resume`" in left.stderr
    assert "hunter2" not in left.stderr + (project / "hidden" / "submission.json").read_text()


def test_a_folder_that_waits_for_a_job_takes_no_other(story):
    assert story.refused.code == 2
    assert f"does, of job {job_in(story.left.stderr)}. Add --resume" in story.refused.stderr


def test_one_who_comes_back_finds_the_same_job_and_sees_all_that_it_wrote(story):
    assert job_in(story.stopped.stderr) == job_in(story.left.stderr)
    assert story.stopped.stderr.count("search: 4 trials") == 1


def test_a_job_that_is_stopped_leaves_what_it_has_done(story):
    assert story.stopped.code == 130
    assert "was stopped. What it has done is in" in story.stopped.stderr
    assert 0 < len(story.rows_then) < 4
    assert not (story.out / "submission.json").exists()


def test_a_job_is_fetched_by_its_id_into_a_folder_that_does_not_know_it(submit, story, project):
    job = job_in(story.left.stderr)
    fetched = submit("config.yaml", "--output", "elsewhere", "--job", job, "--quiet")
    assert fetched.code == 130
    assert rows_of(project / "elsewhere") == story.rows_then


def test_a_job_of_another_config_is_refused_and_leaves_no_folder(submit, story, project):
    refused = submit("config.yaml", "--output", "other", "--set", "seed=4", "--job", job_in(story.left.stderr))
    assert refused.code == 2
    assert "but got other values for seed." in refused.stderr
    assert not (project / "other").exists()


def test_a_new_job_goes_on_with_what_came_back(story):
    assert story.ended.code == 0, story.ended.stderr
    rows = rows_of(story.out)
    assert sorted(int(row["trial"]) for row in rows) == list(range(4))
    kept = {row["trial"]: row["objective"] for row in rows}
    assert all(kept[row["trial"]] == row["objective"] for row in story.rows_then)
    assert all(row["status"] != "failed" for row in rows), rows


def test_what_comes_back_is_as_if_the_search_had_run_here(story, project):
    config = yaml.safe_load((story.out / "config.yaml").read_text())
    assert config["workload"] == f"{project}/source/workload.py:build"
    assert (config["output"], config["resources"]["address"]) == ("out", "local")
    assert (
        json.loads(story.ended.stdout)["settings"]
        == yaml.safe_load((story.out / "recommended.yaml").read_text())["settings"]
    )
    assert str(story.out) in (story.out / "report.html").read_text()
    assert (story.out / "trials" / "0000" / "measurements.jsonl").is_file()
    assert "working_dir_files" not in (story.out / "report.html").read_text()


def test_quiet_is_quiet(story):
    assert story.ended.stderr == ""


def test_a_finished_search_is_not_overwritten(story):
    assert story.again.code == 2
    assert "holds another search. Add --resume to go on with it" in story.again.stderr


def test_what_the_cluster_lacks_ends_as_in_search_and_leaves_no_folder(submit, project):
    lacking = submit("config.yaml", "--output", "lacking", "--set", "resources.cpus_per_trial=64", "--quiet")
    assert lacking.code == 2
    assert "resources.cpus_per_trial: must be at most the 1 CPUs there are, but got 64" in lacking.stderr
    assert "ended with exit code 2" in lacking.stderr
    assert not (project / "lacking").exists()


def test_a_job_that_ends_with_2_in_the_midst_of_a_search_leaves_what_it_has_done(submit, project):
    """A folder where the third trial's losses belong ends it."""
    name = "source/obstructing.py"
    (project / name).write_text(textwrap.dedent(OBSTRUCTION))
    ended = submit("config.yaml", "--output", "obstructed", "--set", f"workload={name}:obstruct", "--quiet")
    assert ended.code == 2, ended.stderr
    assert f"What it has done is in {project / 'obstructed'}; go on with --resume." in ended.stderr
    assert [row["trial"] for row in rows_of(project / "obstructed")] == ["0", "1"]


def test_a_job_whose_start_is_not_answered_is_followed_to_its_end_all_the_same(submit, losing, project, story):
    """On a way without web sockets, on which no log can be read."""
    losing.answers_lost = 1
    ended = submit("config.yaml", "--output", "found", address=f"http://127.0.0.1:{losing.server_port}")
    assert ended.code == 0, ended.stderr
    assert ended.stderr.count("search: 4 trials") == 1
    assert len(rows_of(project / "found")) == 4
    assert losing.n_starts == 2  # of the search, and of what hands its results out


def test_a_job_that_may_have_started_is_asked_for_again_under_its_name(submit, losing, project):
    """Its study is in a database that nobody answers for."""
    study = ("--set", "storage=postgresql+psycopg://me@127.0.0.1:9/none")
    losing.requests_lost = 2
    lost = submit("config.yaml", "--output", "lost", *study, address=f"http://127.0.0.1:{losing.server_port}")
    assert lost.code == 1
    job = json.loads((project / "lost" / "submission.json").read_text())["job_id"]
    assert "the head of the cluster must answer as asked, but gave:" in lost.stderr
    assert f"job {job} may have started all the same. To follow it and fetch its results" in lost.stderr

    def press_ctrl_c(process, above):
        process.send_signal(signal.SIGINT)

    address = f"http://127.0.0.1:{losing.server_port}"
    back = submit(
        "config.yaml", "--output", "lost", *study, "--resume", until=r"job \S+ at", then=press_ctrl_c, address=address
    )
    assert f"knows of no job {job}; it is sent again" in back.stderr
    assert job_in(back.stderr) == job


def test_a_job_that_the_head_knows_no_more_goes_on_with_what_it_left_there(submit, head, environment, project):
    """As when a head is started anew while a job runs: its folder and the note are all that is left."""
    job = "stabletune-joined-1a2b3c4d"
    there = pathlib.Path(environment["HOME"]) / ".stabletune" / "jobs" / job
    (project / "forgotten.yaml").write_text(textwrap.dedent(SHARED).replace("STORAGE", "null"))
    command = [sys.executable, "-m", "stabletune.cli", "search", "forgotten.yaml", "--output", there]
    settings = ["--executor", "inline", "--quiet", "--set", "resources.address=auto", "--set", "budget.trials=2"]
    subprocess.run([*command, *settings], cwd=project, env=environment, check=True)
    rows = rows_of(there)
    (project / "again").mkdir()
    Note(job, head, goes_on=False).write(project / "again")
    ended = submit("forgotten.yaml", "--output", "again", "--resume")
    assert ended.code == 0, ended.stderr
    assert f"knows of no job {job}; it is sent again" in ended.stderr
    assert job_in(ended.stderr) == job
    assert (len(rows), rows_of(project / "again")[:2]) == (2, rows)
    assert len(rows_of(project / "again")) == 3


@pytest.mark.skipif(find_initdb() is None, reason="PostgreSQL is not installed")
def test_a_study_in_a_database_is_joined_with_resume(submit, environment, project):
    server = Server()
    try:
        server.start()
        url = server.new_database("joined", environment["PGPASSWORD"]).replace(":{}", "")
        (project / "joined.yaml").write_text(textwrap.dedent(SHARED).replace("STORAGE", url))
        command = [sys.executable, "-m", "stabletune.cli", "search", "joined.yaml", "--output", "of-the-first"]
        subprocess.run([*command, "--executor", "inline", "--quiet"], cwd=project, env=environment, check=True)
        joined = submit("joined.yaml", "--output", "of-the-second", "--resume", "--quiet")
    finally:
        server.remove()
    assert joined.code == 0, joined.stderr
    assert rows_of(project / "of-the-second") == rows_of(project / "of-the-first")


def test_the_health_checks_of_the_example_are_answered(head, ports):
    services = yaml.safe_load((ROOT / "examples" / "cluster" / "compose.yaml").read_text())["services"]
    for service, url in (("head", head), ("worker-1", f"http://127.0.0.1:{ports[3]}")):
        path = urlsplit(services[service]["healthcheck"]["test"][-1]).path
        with urllib.request.urlopen(url + path) as answer:
            assert answer.read() == b"success"
