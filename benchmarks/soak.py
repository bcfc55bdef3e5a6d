"""Kills drivers, workers and nodes of a search at random moments, and counts what was lost: ``make soak``.

One search is killed and resumed until it has ended, then the next begins, until the time is up. A kill hits the driver
(with all that it started), one worker process, or the raylet, Ray's node. After each the tables are compared with those
before: a finished trial or proof run must neither be missing nor be there twice, and what it showed must be the same.
Where a node dies in the second in which the driver registers with it, Ray's core ends the driver itself, with its own
words and exit code 1: counted apart, and resumed like any other.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

CONFIG = """
version: 1
name: soak
workload: quadratic
workload_args: {jitter: 0.1, curvatures: [1.0, 30.0]}
search_space:
  lr: {low: 1.0e-3, high: 1.0e-1, scale: log}
  beta2: {low: 0.9, high: 0.999, scale: log_one_minus}
budget: {trials: 60, trial_steps: 400, full_steps: 2000, confirm_seeds: 5}
"""
KEYS = {"trials.csv": ("trial",), "confirmations.csv": ("candidate", "purpose", "seed")}
SECONDS_TO_NOTICE, RAY_DID_NOT_START, CLUSTER_IS_LOST = 120, 2, 1
TO_GO_ON = "go on with --resume"
RAYS_WORDS = ("Failed to register worker to Raylet", "Failed to get the system config from raylet")
TOLD = ("status", "steps", "objective")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance, over = random.Random(options.seed), time.monotonic() + 60.0 * options.minutes
    kills: Counter[str] = Counter()
    faults: list[str] = []
    n_searches = 0
    with tempfile.TemporaryDirectory() as place:
        while time.monotonic() < over:
            n_searches += 1
            kills_of_one, faults_of_one = _one_search(Path(place) / str(n_searches), chance, over)
            kills += kills_of_one
            faults += faults_of_one
            print(f"search {n_searches}: {dict(kills_of_one)}, {len(faults_of_one)} faults", flush=True)
    print(f"{sum(kills.values())} kills {dict(kills)} in {n_searches} searches, {len(faults)} faults")
    for fault in faults:
        print(fault)
    sys.exit(bool(faults))


def _one_search(folder: Path, chance: random.Random, over: float) -> tuple[Counter[str], list[str]]:
    folder.mkdir()
    (folder / "config.yaml").write_text(CONFIG, encoding="utf-8")
    command = [sys.executable, "-m", "stabletune.cli", "search", "config.yaml", "--output", "out", "--resume"]
    kills: Counter[str] = Counter()
    faults: list[str] = []
    before: dict[str, dict[tuple[str, ...], tuple[str, ...]]] = {name: {} for name in KEYS}
    while True:
        with (folder / "log").open("ab") as log:
            driver = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)
        while driver.poll() is None and time.monotonic() < over:
            try:
                driver.wait(chance.uniform(1.0, 12.0))
            except subprocess.TimeoutExpired:
                if _kill(driver.pid, kills, chance):
                    break
        if time.monotonic() >= over and driver.poll() is None:
            driver.wait(300)  # the last one ends undisturbed
        try:
            driver.wait(SECONDS_TO_NOTICE)
        except subprocess.TimeoutExpired:
            faults.append(f"{folder}: the search hung")
        _end_what_it_left(driver.pid)
        driver.wait()
        faults += _compared(folder / "out", before)
        if driver.returncode in (0, 3):
            rows = before["trials.csv"]
            if len(rows) != 60:
                faults.append(f"{folder}: a search that ended has {len(rows)} of 60 trials")
            return kills, faults
        last_line = (folder / "log").read_text().rstrip().rpartition("\n")[2]
        if driver.returncode == CLUSTER_IS_LOST and any(words in last_line for words in RAYS_WORDS):
            kills["driver, by Ray"] += 1
        elif driver.returncode == CLUSTER_IS_LOST and TO_GO_ON in last_line:
            continue
        elif driver.returncode not in (-signal.SIGKILL, RAY_DID_NOT_START):
            faults.append(f"{folder}: exit code {driver.returncode}: {(folder / 'log').read_text()[-300:]}")
            return kills, faults


def _kill(driver: int, kills: Counter[str], chance: random.Random) -> bool:
    """Kill the driver, one of its workers or its node; whether the search ends of it."""
    found = _session_of(driver)
    workers = [pid for pid, name in found if name.startswith("ray::")]
    nodes = [pid for pid, name in found if "/raylet/raylet " in name]
    kind = chance.choice(["driver", *(["worker"] * 2 if workers else []), *(["node"] if nodes else [])])
    kills[kind] += _end({"driver": driver, "worker": chance.choice(workers or [0]), "node": (nodes or [0])[0]}[kind])
    return kind != "worker"


def _session_of(leader: int) -> list[tuple[int, str]]:
    """Every process of the session that a driver leads, with what it calls itself."""
    listed = subprocess.run(["ps", "-eo", "pid=,sess=,args="], capture_output=True, text=True, check=True).stdout
    split = (line.split(None, 2) for line in listed.splitlines())
    return [(int(part[0]), part[2]) for part in split if len(part) == 3 and int(part[1]) == leader]


def _end(pid: int) -> int:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return 0
    return 1


def _end_what_it_left(leader: int) -> None:
    for pid, _ in _session_of(leader):
        _end(pid)


def _compared(folder: Path, before: dict[str, dict[tuple[str, ...], tuple[str, ...]]]) -> list[str]:
    """What is missing, double or different since the last time; ``before`` is brought up to date."""
    faults = []
    for name, key in KEYS.items():
        path = folder / name
        whole = path.read_bytes().rpartition(b"\n")[0].decode() if path.exists() else ""
        rows = list(csv.DictReader(whole.splitlines()))
        keys = [tuple(row[column] for column in key) for row in rows]
        now = {k: tuple(row[column] for column in TOLD) for k, row in zip(keys, rows, strict=True)}
        faults += [f"{path}: {k} is there twice" for k, n in Counter(keys).items() if n > 1]
        faults += [f"{path}: {k} is gone" for k in before[name] if k not in now]
        faults += [
            f"{path}: {k} was {old} and is {now[k]}" for k, old in before[name].items() if now.get(k, old) != old
        ]
        before[name] = now
    return faults


if __name__ == "__main__":
    main()
