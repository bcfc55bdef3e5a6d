"""What the driver costs for each trial, at a hundred finished trials and at five thousand.

Trials do nothing: results are made up where a worker would have trained. What is timed is everything else that a trial
takes: the sampler's proposal with all models fitted anew, the limits of pace, the files, the study.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml
from timing import figure

from stabletune.config import load_config
from stabletune.records import TrialResult, TrialSpec
from stabletune.results.store import RunFolder
from stabletune.study.listener import Listener
from stabletune.study.optuna_study import SearchStudy
from stabletune.study.trials.search_phase import SearchPhase
from stabletune.study.trials.warm_start import Lessons

EARLY, WINDOW = 100, 40


def made_up(spec: TrialSpec) -> TrialResult:
    """A curve that falls with the path; the highest rates spike."""
    lr = spec.params["lr"]
    has_spiked = lr > 2e-2
    steps = np.arange(1, (60 if has_spiked else spec.steps) + 1)
    losses = np.exp(-3.0 * np.log1p(lr * steps))
    is_done = not has_spiked
    status = "completed" if is_done else "stopped"
    objective = float(losses[-10:].mean()) if is_done else None
    return TrialResult(spec=spec, status=status, reason="made up", losses=losses, objective=objective, risk=0.2)


def main() -> None:
    n_trials = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    folder = Path(tempfile.mkdtemp(prefix="stabletune-bench-"))
    content = {
        "version": 1,
        "name": "driver",
        "workload": "quadratic",
        "search_space": "adam_lr_beta2",
        "budget": {"trials": n_trials},
        "output": str(folder / "run"),
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    config = load_config(folder / "config.yaml")
    run = RunFolder(config.output)
    run.create(config.resolved())
    phase = SearchPhase(config, SearchStudy(config, run.journal_path), run, lessons=Lessons(), listener=Listener())
    seconds = []
    while not phase.is_over:
        started = time.perf_counter()
        spec = phase.next_spec()
        assert spec is not None
        phase.on_result(made_up(spec))
        seconds.append(time.perf_counter() - started)
    early = statistics.median(seconds[EARLY - WINDOW // 2 : EARLY + WINDOW // 2])
    late = statistics.median(seconds[-WINDOW:])
    figure(f"driver, a trial at {EARLY}", 1000 * early, "ms")
    figure(f"driver, a trial at {n_trials}", 1000 * late, "ms")
    figure("ratio", late / early, "", "<= 2")


if __name__ == "__main__":
    main()
