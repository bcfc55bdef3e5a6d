"""A disk that is full in the middle of a search: a line that says so, and nothing lost once there is room."""

import csv
import resource
import subprocess
import sys

import pytest

from stabletune import search

LIMITED = """
import sys
from stabletune import search
search(sys.argv[1], output=sys.argv[2], executor="inline")
"""


def trials_of(folder):
    with (folder / "trials.csv").open(newline="") as file:
        return [{**row, "seconds": ""} for row in csv.DictReader(file)]


@pytest.mark.parametrize("n_bytes", [6_000, 20_000])
def test_a_file_that_cannot_grow_ends_the_search_and_a_resume_loses_nothing(write_config, tmp_path, n_bytes):
    config = write_config()
    ended = subprocess.run(
        [sys.executable, "-c", LIMITED, str(config), str(tmp_path / "out")],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes)),
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 1 and "File too large" in ended.stderr, ended.stderr
    before = trials_of(tmp_path / "out")
    search(config, output=tmp_path / "out", executor="inline", resume=True)
    after = trials_of(tmp_path / "out")
    assert [int(row["trial"]) for row in after] == list(range(6))
    assert after[: len(before)] == before


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 600 kB, and what enlarges it."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "none", place], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no small disk can be mounted here: {made.stderr.strip()}")
    yield place, lambda: subprocess.run(["mount", "-o", "remount,size=60m", place], check=True)
    subprocess.run(["umount", place], check=True)


@pytest.mark.ray
@pytest.mark.slow
def test_a_full_disk_is_said_in_a_line_and_a_search_goes_on_once_there_is_room(write_config, small_disk):
    config, (place, enlarge) = write_config(("trials: 6", "trials: 60")), small_disk
    command = [sys.executable, "-m", "stabletune.cli", "search", str(config), "--output", str(place / "out")]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 1
    line = ended.stderr.splitlines()[-1]
    assert "must have room, but its disk is full. Make room, and go on with --resume." in line
    assert "Traceback" not in ended.stderr
    before = trials_of(place / "out")
    enlarge()
    done = subprocess.run([*command, "--resume"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    after = {row["trial"]: row for row in trials_of(place / "out")}
    assert sorted(map(int, after)) == list(range(60))
    assert [after[row["trial"]] for row in before] == before
