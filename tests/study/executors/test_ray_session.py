"""Slots on a cluster, and what is refused before a trial waits for ever."""

import json
import os
import subprocess
import sys

import pytest

from stabletune.config import Resources
from stabletune.errors import ResourceError
from stabletune.study.executors.ray_session import GIB, count_slots

LARGE = {"CPU": 8.0, "GPU": 2.0, "memory": 64 * GIB}
SMALL = {"CPU": 3.0, "memory": 8 * GIB}


@pytest.mark.parametrize(
    ("asked", "nodes", "slots"),
    [
        ({}, [LARGE, SMALL], 11),
        ({"cpus_per_trial": 2}, [LARGE, SMALL], 5),
        ({"cpus_per_trial": 2}, [SMALL, SMALL], 2),
        ({"gpus_per_trial": 0.25}, [LARGE, SMALL], 8),
        ({"gpus_per_trial": 2}, [LARGE, SMALL], 1),
        ({"cpus_per_trial": 0.1}, [SMALL], 30),
        ({"memory_gib_per_trial": 8}, [LARGE, SMALL], 9),
        ({"max_concurrent": 4}, [LARGE, SMALL], 4),
        ({"max_concurrent": 40}, [LARGE, SMALL], 11),
    ],
)
def test_trials_at_once_are_counted_node_by_node(asked, nodes, slots):
    assert count_slots(Resources(**asked), nodes) == slots


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"cpus_per_trial": 9}, r"cpus_per_trial: must be at most the 8 CPUs there are, but got 9"),
        ({"gpus_per_trial": 3}, r"gpus_per_trial: must be at most the 2 GPUs there are, but got 3"),
        ({"memory_gib_per_trial": 65}, r"memory_gib_per_trial: must be at most the 64 GiB of memory there are"),
    ],
)
def test_what_no_single_node_has_is_refused(asked, words):
    with pytest.raises(ResourceError, match=words):
        count_slots(Resources(**asked), [LARGE, SMALL])


@pytest.mark.ray
@pytest.mark.parametrize("address", ["ray://127.0.0.1:9", "127.0.0.1:9", "no-such-host.invalid:6379"])
def test_an_address_where_nothing_answers_is_refused_in_one_line(write_config, tmp_path, address):
    config = write_config(("budget:", f"resources: {{address: '{address}'}}\nbudget:"))
    command = [sys.executable, "-m", "stabletune.cli", "search", str(config), "--output", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert f"resources.address: must be a Ray cluster that answers, but '{address}' gave" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("runtime_env", "place", "found"),
    [
        ({"working_dir": "gcs://_ray_pkg_1a2b.zip"}, "_ray_pkg_1a2b", "_ray_pkg_1a2b"),
        ({"working_dir": "gcs://_ray_pkg_1a2b.zip"}, "_ray_pkg_1a2b/source/deep", "_ray_pkg_1a2b"),
        ({"working_dir": "/opt/project"}, "elsewhere", "elsewhere"),
        ({"env_vars": {"A": "1"}}, "elsewhere", None),
        ({}, "elsewhere", None),
    ],
)
def test_the_folder_that_was_sent_with_a_job_is_found_from_anywhere_in_it(tmp_path, runtime_env, place, found):
    folder = tmp_path / place
    folder.mkdir(parents=True)
    environment = {**os.environ, "RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps({"runtime_env": runtime_env})}
    code = "from stabletune.study.executors.ray_session import sent_with_the_job; print(sent_with_the_job())"
    done = subprocess.check_output([sys.executable, "-c", code], cwd=folder, env=environment, text=True)
    assert done.strip() == ("None" if found is None else str(tmp_path / found))


@pytest.mark.ray
@pytest.mark.slow
def test_a_ray_that_cannot_start_on_this_machine_is_a_line_and_says_how_to_go_on(write_config, tmp_path):
    too_long = tmp_path / ("x" * 100)  # for the name of a socket
    command = [sys.executable, "-m", "stabletune.cli", "search", str(write_config()), "--output", str(tmp_path / "out")]
    ended = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"RAY_TMPDIR": str(too_long)}, timeout=600
    )
    assert ended.returncode == 2, ended.stderr
    (line,) = ended.stderr.splitlines()[-1:]
    assert line.startswith("resources.address: Ray must start on this machine, but gave: ")
    assert line.endswith("Try again; a search that has begun goes on with --resume.")
    assert "Traceback" not in ended.stderr


FROM_A_THREAD = """
import signal, threading
from stabletune.config import Resources
from stabletune.study.executors.ray_session import ray_session

def interrupt(*_): ...

signal.signal(signal.SIGTERM, interrupt)

def connect():
    with ray_session(Resources(cpus_per_trial=1), None):
        print("connected")

thread = threading.Thread(target=connect)
thread.start()
thread.join()
"""


@pytest.mark.ray
def test_a_program_that_does_something_at_sigterm_may_search_in_any_thread():
    ended = subprocess.run([sys.executable, "-c", FROM_A_THREAD], capture_output=True, text=True, timeout=300)
    assert ended.stdout == "connected\n", ended.stderr
