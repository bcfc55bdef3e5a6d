"""A head that dies amid a search: the driver ends and says how to go on, and with the new head nothing is lost."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.submission.conftest import free_ports

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SECONDS_TO_START, SECONDS_TO_END = 180.0, 240.0
N_TRIALS = 14


@pytest.fixture
def environment(tmp_path):
    """A home and a token of its own, and a Ray that waits ten seconds for its head instead of sixty."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return {
        **kept,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "0123456789abcdef" * 4,
        "RAY_gcs_rpc_server_reconnect_timeout_s": "10",
        "OMP_NUM_THREADS": "1",
    }


@pytest.fixture
def start_head(environment, tmp_path_factory):
    """Starts a head on the same port each time; whatever runs at the end is killed."""
    port, client, agent = free_ports(3)
    folder = tmp_path_factory.mktemp("r")  # short: sockets lie below it
    started = []

    def start():
        command = (
            f"ray start --head --block --node-ip-address=127.0.0.1 --port={port} --include-dashboard=false "
            f"--ray-client-server-port={client} --dashboard-agent-listen-port={agent} --num-cpus=1 "
            f"--object-store-memory=100000000 --temp-dir={folder}"
        )
        log = folder / f"{len(started)}.log"
        with log.open("w") as file:
            head = subprocess.Popen(
                command.split(), env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
            )
        started.append(head)
        deadline = time.monotonic() + SECONDS_TO_START
        while "Ray runtime started" not in log.read_text():
            assert head.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        return head, f"127.0.0.1:{port}"

    yield start
    for head in started:
        if head.poll() is None:
            kill(head)


def kill(head):
    """The head with all that it started, at once."""
    os.killpg(head.pid, signal.SIGKILL)
    head.wait()


def rows_of(folder):
    with (folder / "trials.csv").open(newline="") as file:
        return {row["trial"]: row for row in csv.DictReader(file)}


@pytest.mark.parametrize("comes_back", ["at once", "later"])
def test_a_search_whose_head_dies_ends_with_words_and_goes_on_with_the_new_head(
    write_config, tmp_path, environment, start_head, comes_back
):
    head, address = start_head()
    config = write_config(
        ("{trials: 6, trial_steps: 60", f"{{trials: {N_TRIALS}, trial_steps: 400"),
        ("full_steps: 150", "full_steps: 500"),
        ("budget:", f'resources: {{address: "{address}"}}\nbudget:'),
    )
    command = [sys.executable, "-m", "stabletune.cli", "search", str(config), "--output", str(tmp_path / "out")]
    driver = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    heard = []
    for line in driver.stderr:
        heard.append(line)
        if sum(": lr " in line for line in heard) == 3:
            break
    kill(head)
    if comes_back == "at once":
        start_head()
    _, said = driver.communicate(timeout=SECONDS_TO_END)
    assert driver.returncode == 1, "".join(heard) + said
    assert "Start it again, and go on with --resume." in said and "Traceback" not in said, said
    before = rows_of(tmp_path / "out")
    assert 3 <= len(before) < N_TRIALS
    if comes_back == "later":
        start_head()
    done = subprocess.run([*command, "--resume"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "out" / "trials.csv").open(newline="") as file:
        assert sorted(int(row["trial"]) for row in csv.DictReader(file)) == list(range(N_TRIALS))
    after = rows_of(tmp_path / "out")
    assert {number: after[number] for number in before} == before
