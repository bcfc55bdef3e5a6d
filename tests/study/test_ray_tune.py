"""The same study on real Ray workers, and what is left of it after the driver was killed."""

import csv
import os
import signal
import subprocess
import sys

import pytest

from stabletune import search
from stabletune.config import load_config
from stabletune.errors import ResourceError
from tests.study.spiking import write_spiking_workload

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def rows_of(path):
    with open(path, newline="") as file:
        return [{**row, "seconds": ""} for row in csv.DictReader(file)]


def command(config, output, *options):
    return [sys.executable, "-m", "stabletune.cli", "search", str(config), "--output", str(output), *options]


def test_ray_and_inline_give_the_same_trials_and_recommendation(write_config, tmp_path):
    one = ("budget:", "resources: {max_concurrent: 1}\nbudget:")
    config = write_config(one)
    on_ray = search(config, output=tmp_path / "ray")
    inline = search(config, output=tmp_path / "inline", executor="inline")
    for name in ("trials.csv", "confirmations.csv"):
        assert rows_of(tmp_path / "ray" / name) == rows_of(tmp_path / "inline" / name)
    assert on_ray.recommendation.settings == inline.recommendation.settings
    assert on_ray.recommendation.evidence == inline.recommendation.evidence


def test_a_dropped_candidates_other_run_is_ended_and_its_worker_goes_on(write_config, tmp_path):
    spiking = write_spiking_workload(tmp_path, "seed % 3 == 2 and calls[0] in (300, 301, 302)")
    config = write_config(*spiking, ("full_steps: 150, confirm_seeds: 2", "full_steps: 6000, confirm_seeds: 6"))
    assert search(config, output=tmp_path / "out").ending == "nothing_survived"
    reasons = [row["reason"] for row in rows_of(tmp_path / "out" / "confirmations.csv")]
    assert any("no longer needed" in reason for reason in reasons)


@pytest.mark.parametrize("kind", ["cpus", "gpus"])
def test_resources_that_the_machine_lacks_are_refused_and_leave_no_folder(write_config, tmp_path, kind):
    config = write_config(("budget:", f"resources: {{{kind}_per_trial: 4096}}\nbudget:"))
    with pytest.raises(ResourceError, match=rf"resources.{kind}_per_trial: must be at most .* but got 4096"):
        search(config, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_too_many_cpus_are_refused_before_ray_starts(write_config, tmp_path):
    from stabletune.study.executors import load_executor

    config = load_config(write_config(("budget:", "resources: {cpus_per_trial: 4096}\nbudget:")))
    with pytest.raises(ResourceError):
        load_executor("ray_tune", config.resources)


@pytest.mark.parametrize(
    ("kill", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)], ids=["kill -9", "Ctrl-C"]
)
def test_no_finished_trial_is_lost_and_none_is_there_twice_after(write_config, tmp_path, kill, code):
    config, out = write_config(("trials: 6", "trials: 12")), tmp_path / "out"
    environment = {**os.environ, "TMPDIR": str(tmp_path)}  # for what a killed one leaves behind
    process = subprocess.Popen(command(config, out), stderr=subprocess.PIPE, text=True, env=environment)
    n_lines = 0
    for line in process.stderr:
        n_lines += ": completed:" in line
        if n_lines == 4:
            process.send_signal(kill)
            break
    process.stderr.read()
    assert process.wait() == code
    before = rows_of(out / "trials.csv")
    assert len(before) >= 4
    done = subprocess.run(command(config, out, "--resume"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    after = rows_of(out / "trials.csv")
    assert sorted(int(row["trial"]) for row in after) == list(range(12))
    assert [row for row in after if row["trial"] in {r["trial"] for r in before}] == sorted(
        before, key=lambda row: int(row["trial"])
    )


DYING = """
import os, pathlib, signal
from stabletune.trial.workloads.quadratic import build as quadratic

def build(seed, device, **arguments):
    with open(pathlib.Path(__file__).with_name("builds"), "a") as builds:
        builds.write("x")
        n = builds.tell()
    if 3 <= n <= 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return quadratic(seed, device, **arguments)
"""


@pytest.mark.parametrize("workload", ["quadratic", "dying.py:build"], ids=["whatever runs well", "a worker that dies"])
def test_nothing_of_ray_or_optuna_reaches_the_terminal(write_config, tmp_path, workload):
    (tmp_path / "dying.py").write_text(DYING)
    config = write_config(
        ("workload: quadratic", f"workload: {workload}"), ("budget:", "resources: {max_concurrent: 1}\nbudget:")
    )
    done = subprocess.run(command(config, tmp_path / "out"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert ("the worker process died three times" in done.stderr) is (workload != "quadratic")
    known = ("search:", "proof:", "baseline seed", *(f"{n}" for n in range(10)))
    assert all(line.startswith(known) for line in done.stderr.splitlines()), done.stderr
    assert done.stdout.startswith("Recommended: optimizer AdamW")
