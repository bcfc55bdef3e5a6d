"""Ctrl-C pressed again and again, SIGTERM, a terminal that is closed: one line, exit code 130, and --resume goes on."""

import csv
import os
import signal
import subprocess
import sys
import time

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SIGNALS = {
    "Ctrl-C": [signal.SIGINT],
    "Ctrl-C, three times": [signal.SIGINT] * 3,
    "SIGTERM": [signal.SIGTERM],
    "SIGTERM, then Ctrl-C": [signal.SIGTERM, signal.SIGINT],
    "SIGHUP": [signal.SIGHUP],
}


def processes_of(session):
    listed = subprocess.run(["ps", "-eo", "pid=,sess=,stat=,args="], capture_output=True, text=True, check=True).stdout
    split = (line.split(None, 3) for line in listed.splitlines())
    return [part[3] for part in split if int(part[1]) == session and not part[2].startswith("Z")]


@pytest.mark.parametrize("kind", SIGNALS)
def test_a_search_leaves_in_peace_and_goes_on(write_config, tmp_path, tmp_path_factory, kind):
    config, out = write_config(("trials: 6", "trials: 8")), tmp_path / "out"
    scratch = tmp_path_factory.mktemp("s")  # short: sockets lie below it
    command = [sys.executable, "-m", "stabletune.cli", "search", str(config), "--output", str(out)]
    environment = os.environ | {"TMPDIR": str(scratch)}
    driver = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True)
    heard = []
    for line in driver.stderr:
        heard.append(line)
        if sum(": lr " in line for line in heard) == 2:
            break
    for number in SIGNALS[kind]:
        os.killpg(driver.pid, number)
        time.sleep(0.3)  # as fast as a hand is
    _, said = driver.communicate(timeout=240)
    assert driver.returncode == 130, "".join(heard) + said
    assert said.splitlines()[-1] == "stabletune: interrupted; every finished trial is kept. Go on with --resume."
    assert "Traceback" not in said
    assert not (out / "running.json").exists()
    deadline = time.monotonic() + 60.0
    while processes_of(driver.pid) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert processes_of(driver.pid) == [] and list(scratch.glob("stabletune-*")) == []
    done = subprocess.run(
        [*command, "--resume", "--executor", "inline"], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    with (out / "trials.csv").open(newline="") as file:
        assert sorted(int(row["trial"]) for row in csv.DictReader(file)) == list(range(8))
