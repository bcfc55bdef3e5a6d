"""Real drivers, each a process with a folder of its own, and what they wrote."""

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import yaml

from tests.study.running import rows_of

ROOT = Path(__file__).resolve().parents[3]


def start(config, output, *options, executor="inline"):
    """A driver that runs its trials in its own process; it shares its study if it begins with ``--resume``."""
    arguments = [sys.executable, "-m", "stabletune.cli", "search", str(config), "--output", str(output), *options]
    return subprocess.Popen(
        [*arguments, "--executor", executor],
        cwd=config.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(path, process):
    """Wait until a driver makes this file; fail where it ends before."""
    while not path.exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)


def end(process, seconds=600):
    """Exit code and everything said."""
    said, _ = process.communicate(timeout=seconds)
    return process.returncode, said


def runs_trained(folder):
    """Each run that was begun in any driver: process and seed."""
    return [tuple(line.split()) for line in (folder / "runs").read_text().splitlines()]


def found(output):
    """What a driver's folder says of the study: trials, proof runs, recommendation; without where it was written."""
    recommended = yaml.safe_load((output / "recommended.yaml").read_text())
    return rows_of(output / "trials.csv"), rows_of(output / "confirmations.csv"), recommended


def repeated(rows, *columns):
    """What is there more than once."""
    return [key for key, n in Counter(tuple(row[name] for name in columns) for row in rows).items() if n > 1]
