"""A trial of a search can be run again from its row alone, to the last bit."""

import subprocess
import sys

import numpy as np

from stabletune.results.curves import read_curves
from stabletune.results.store import RunFolder
from tests.study.running import run


def test_a_row_has_all_that_its_trial_needs_to_be_repeated(write_config, tmp_path):
    config = write_config()
    run(config, tmp_path / "out")
    folder = RunFolder(tmp_path / "out")
    completed = [row for row in folder.trials.rows() if row["status"] == "completed" and row["trial"]]
    assert completed
    for row in completed[:2]:
        settings = [f"--param={name}={row[name]!r}" for name in ("lr", "beta2")]
        command = [sys.executable, "-m", "stabletune.cli", "trial", str(config), *settings]
        output = tmp_path / f"again-{row['trial']}"
        steps, seed = f"--steps={row['steps']}", f"--seed={row['seed']}"
        done = subprocess.run([*command, steps, seed, f"--output={output}"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        again = next(found for path in [output, *output.rglob("*")] if path.is_dir() and (found := read_curves(path)))
        assert np.array_equal(again.losses, folder.curves(row["trial"]).losses)
