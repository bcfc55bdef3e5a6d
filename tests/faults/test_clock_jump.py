"""A clock that jumps by days in the middle of a search: no time limit is reached by it, and nothing is lost."""

import csv
import glob
import os
import re
import subprocess
import sys

import pytest

LIBRARY = next(iter(glob.glob("/usr/lib/*/faketime/libfaketime.so.1")), None)

pytestmark = pytest.mark.skipif(LIBRARY is None, reason="the library of Debian's faketime is not installed")

SEARCH = """
import sys
from stabletune import search
from stabletune.study.listener import Listener

class WaitsAfterTwo(Listener):
    n = 0

    def on_result(self, result):
        self.n += 1
        if self.n == 2:
            print("two", flush=True)
            sys.stdin.readline()

search(sys.argv[1], output=sys.argv[2], executor="inline", listener=WaitsAfterTwo())
"""


@pytest.mark.parametrize("jump", ["+3d", "-3d"])
def test_a_clock_that_jumps_ends_no_search(write_config, tmp_path, jump):
    config = write_config(("{trials: 6", "{wall_minutes: 60, trials: 8"))
    clock, out = tmp_path / "clock", tmp_path / "out"
    clock.write_text("+0")
    fake = {"LD_PRELOAD": LIBRARY, "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", SEARCH, str(config), str(out)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | fake | {"FAKETIME_DONT_FAKE_MONOTONIC": "1"},
    )
    process.stdout.readline()
    clock.write_text(jump)
    _, errors = process.communicate("go on\n")
    assert process.returncode == 0, errors
    with (out / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(int(row["trial"]) for row in rows) == list(range(8))
    assert all(0.0 <= float(row["seconds"]) < 600.0 for row in rows)
    written = [path.stat().st_mtime for path in out.rglob("*") if path.is_file()]
    assert max(written) - min(written) < 600.0  # the files' own clock did not jump
    days = set(re.findall(r'"datetime_complete": ?"(.{10})', (out / "study.journal").read_text()))
    assert len(days) == 2  # the one that the search saw did
