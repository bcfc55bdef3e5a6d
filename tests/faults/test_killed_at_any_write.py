"""A search that is killed before any access to its folder: every file is whole or absent, and ``--resume`` goes on."""

import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import yaml

from stabletune.errors import OutputFolderError
from stabletune.results.store import RunFolder
from tests.faults.dying import run

KEYS = {"trials.csv": ("trial",), "confirmations.csv": ("candidate", "purpose", "seed")}
READERS = {
    ".npy": lambda path: np.load(path),
    ".npz": lambda path: np.load(path).files,
    ".json": lambda path: json.loads(path.read_text()),
    ".jsonl": lambda path: [json.loads(line) for line in path.read_text().splitlines()],
    ".yaml": lambda path: yaml.safe_load(path.read_text())["version"],
    ".html": lambda path: path.read_text().rstrip().endswith("</html>") or None,
    ".csv": lambda path: rows_of(path, KEYS[path.name]),
}
N_TRIALS = 4


def rows_of(path, key):
    """Rows by what names them, none of which may be there twice; without what no two runs share."""
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        rows = [{**row, "seconds": ""} for row in csv.DictReader(file)]
    found = {tuple(row[name] for name in key): row for row in rows}
    assert len(found) == len(rows), f"{path}: a row is there twice"
    return found


def assert_whole(folder):
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix in READERS:
            assert READERS[path.suffix](path) is not None, path


def small(write_config):
    return write_config(
        ("{trials: 6, trial_steps: 60, full_steps: 150", f"{{trials: {N_TRIALS}, trial_steps: 40, full_steps: 60")
    )


@pytest.mark.slow
def test_every_file_is_whole_and_nothing_is_lost_wherever_the_kill_comes(write_config, tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    helper = [sys.executable, "-m", "tests.faults.kill_at_writes", str(small(write_config)), str(place), "24", "12"]
    done = subprocess.run(helper, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    points = dict(map(int, line.split()) for line in done.stdout.splitlines())
    assert len(points) > 30
    whole = {name: rows_of(place / "whole" / name, key) for name, key in KEYS.items()}
    for n, code in points.items():
        here = place / str(n)
        assert code == 0, (n, (here / "log").read_text())
        assert_whole(here / "before")
        for name, key in KEYS.items():
            before, after = rows_of(here / "before" / name, key), rows_of(here / "after" / name, key)
            assert {k: after.get(k) for k in before} == before, (n, name)
        assert sorted(int(k[0]) for k in rows_of(here / "after" / "trials.csv", KEYS["trials.csv"])) == list(
            range(N_TRIALS)
        )
        if (
            len(rows_of(here / "before" / "trials.csv", KEYS["trials.csv"])) == N_TRIALS
        ):  # the proof goes on as it would have
            proven = rows_of(here / "after" / "confirmations.csv", KEYS["confirmations.csv"])
            assert {k[0] for k in proven} == {k[0] for k in whole["confirmations.csv"]}, n


def begun(folder, config):
    """A folder as it is when the very first trial begins."""
    with_study = run(config, folder, log=folder.with_suffix(".log"), dies_at=20)
    assert with_study < 0 and (folder / "study.journal").exists() and not any((folder / "trials").iterdir())
    return folder


def without(folder, *names):
    for name in names:
        (folder / name).unlink(missing_ok=True)


@pytest.mark.parametrize(
    "missing",
    [("config.yaml", "study.journal", "trials.csv", "running.json"), ("study.journal", "trials.csv", "running.json")],
    ids=["before its config was written", "before its study was made"],
)
def test_a_search_that_was_killed_before_its_first_trial_begins_anew(write_config, tmp_path, missing):
    config = small(write_config)
    out = begun(tmp_path / "out", config)
    without(out, *missing)
    assert run(config, out, log=tmp_path / "log", resume=True) == 0, (tmp_path / "log").read_text()
    assert len(rows_of(out / "trials.csv", KEYS["trials.csv"])) == N_TRIALS


def test_a_journal_that_is_still_empty_is_begun(write_config, tmp_path):
    config = small(write_config)
    out = begun(tmp_path / "out", config)
    (out / "study.journal").write_bytes(b"")
    assert run(config, out, log=tmp_path / "log", resume=True) == 0, (tmp_path / "log").read_text()


def test_a_folder_called_trials_with_something_in_it_is_not_taken_over(tmp_path):
    (tmp_path / "trials").mkdir()
    (tmp_path / "trials" / "mine").write_text("")
    with pytest.raises(OutputFolderError, match="holds trials, which a search would overwrite"):
        RunFolder(tmp_path).create({"name": "y"})
