"""What the driver costs in a search of thousands of trials, and how idle it would leave hundreds of workers.

Trials do nothing: results are made up where a worker would have trained. The study, the searcher that Ray Tune would
ask, the records and the run folder are the real ones; Ray itself is not started. Workers live on a virtual clock: a
trial lasts a log-normal time, cut short where it stops early, dies or fails, and the driver, of whom there is one,
handles what they send in order. What it does takes as long there as it took the CPU here, disks not counted.

    python benchmarks/bench_scale.py [TRIALS] [WORKERS] [MEDIAN_SECONDS] [config.key=value]...
"""

from __future__ import annotations

import dataclasses
import heapq
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from timing import figure

from stabletune.config import Config, load_config
from stabletune.records import Measurement, Progress, TrialResult, TrialSpec
from stabletune.results.report import write_report
from stabletune.results.store import RunFolder
from stabletune.study.executors.ray_bridge import SourceSearcher
from stabletune.study.failures import ended, worker_died
from stabletune.study.listener import Listener
from stabletune.study.optuna_study import SearchStudy
from stabletune.study.proof.confirm import ConfirmationPhase
from stabletune.study.trials.search_phase import SearchPhase
from stabletune.study.trials.warm_start import Lessons
from stabletune.study.under_way import RunsUnderWay

SIGMA, REPORTS, MEASURED = 0.5, 10, 20
DIES, FAILS = 0.01, 0.03
WINDOW = 100
DEFAULTS = (2_000, 1, 600)


class SearchAlone:
    """The source of a search without its proof: what ``study.run`` does for each trial."""

    def __init__(self, config: Config, folder: RunFolder, *, resume: bool = False) -> None:
        study = SearchStudy(config, folder.journal_path, beginning="again" if resume else "anew")
        self.phase = SearchPhase(config, study, folder, lessons=Lessons(), listener=Listener())
        self.study = study
        self.under_way = RunsUnderWay(folder)

    @property
    def is_over(self) -> bool:
        return self.phase.is_over

    def next_spec(self) -> TrialSpec | None:
        spec = self.phase.next_spec()
        if spec is not None:
            self.under_way.start(spec)
        return spec

    def on_progress(self, progress: Progress) -> bool:
        self.under_way.report(progress)
        return self.phase.on_progress(progress)

    def on_result(self, result: TrialResult) -> None:
        self.under_way.end(result.spec)
        self.phase.on_result(result)

    def on_abandoned(self, spec: TrialSpec, steps: int) -> None:
        self.under_way.end(spec)
        self.phase.on_abandoned(spec, steps)


class Costs:
    """CPU and wall seconds of every call of a kind, in order."""

    def __init__(self) -> None:
        self.cpu: dict[str, list[float]] = {}
        self.wall: dict[str, list[float]] = {}

    def of(self, kind: str, action: Callable[[], Any]) -> tuple[Any, float]:
        """What the action gave, and its CPU seconds."""
        wall, cpu = time.perf_counter(), time.process_time()
        found = action()
        spent = time.process_time() - cpu
        self.cpu.setdefault(kind, []).append(spent)
        self.wall.setdefault(kind, []).append(time.perf_counter() - wall)
        return found, spent


class Cluster:
    """Workers on a virtual clock, all of whom one driver serves in the order of what they send."""

    def __init__(self, searcher: SourceSearcher, n_workers: int, median_seconds: float) -> None:
        self._searcher, self._n_workers, self._median = searcher, n_workers, median_seconds
        self._random = np.random.default_rng(0)
        self._events: list[tuple[float, int, str, Callable[[], Any] | None]] = []
        self._order = 0
        self.costs, self.now, self.busy, self.idle = Costs(), 0.0, 0.0, 0.0

    def run(self) -> None:
        """Until the search is over."""
        for _ in range(self._n_workers):
            self._at(0.0, "free", None)
        while self._events:
            sent, _, kind, action = heapq.heappop(self._events)
            self.now = max(self.now, sent)
            if action is not None:
                self._charge(kind, action)
            if kind in ("result", "free"):
                self._hand_out(sent)

    def _charge(self, kind: str, action: Callable[[], Any]) -> Any:
        found, spent = self.costs.of(kind, action)
        self.now += spent
        self.busy += spent
        return found

    def _hand_out(self, free_since: float) -> None:
        """Give the worker its next trial; until then it is idle."""
        trial_id = f"{self._order}"
        config = self._charge("suggestion", lambda: self._searcher.suggest(trial_id))
        if not isinstance(config, dict):
            return
        self.idle += self.now - free_since
        spec: TrialSpec = config["spec"]
        result, is_dead = self._outcome(spec)
        share = result.steps / spec.steps if result.steps else float(self._random.random())
        lasts = self._median * float(self._random.lognormal(0.0, SIGMA)) * share
        for n in range(1, REPORTS):
            step = max(1, result.steps * n // REPORTS)
            self._at(self.now + lasts * n / REPORTS, "report", self._report(trial_id, spec, step))
        told = {} if is_dead else {"result": result}
        self._at(self.now + lasts, "result", lambda: self._searcher.on_trial_complete(trial_id, told, error=is_dead))

    def _outcome(self, spec: TrialSpec) -> tuple[TrialResult, bool]:
        """A result, and whether the worker died instead; trial 0 must run."""
        fate = float(self._random.random()) if spec.number else 1.0
        if fate < DIES + FAILS:
            return ended(spec, "made up"), fate < DIES
        result = made_up(spec)
        steps = np.linspace(1, result.steps, MEASURED).astype(int)
        read = tuple(
            Measurement(
                step=int(n), loss=float(result.losses[n - 1]), lr=1e-3, sharpness_ratio=0.5, v_hat_staleness=1.0
            )
            for n in steps
        )
        each = np.ones(result.steps)
        return dataclasses.replace(result, measurements=read, gradient_norms=each, learning_rates=each), False

    def _report(self, trial_id: str, spec: TrialSpec, step: int) -> Callable[[], Any]:
        progress = Progress(
            number=spec.number,
            purpose=spec.purpose,
            seed=spec.seed,
            step=step,
            steps=spec.steps,
            loss=0.5,
            sharpness_ratio=0.5,
            v_hat_staleness=1.0,
        )
        return lambda: self._searcher.wants_more_of(trial_id, {"progress": progress})

    def _at(self, when: float, kind: str, action: Callable[[], Any] | None) -> None:
        self._order += 1
        heapq.heappush(self._events, (when, self._order, kind, action))


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


def begin(n_trials: int, overrides: Sequence[str]) -> tuple[Config, RunFolder]:
    folder = Path(tempfile.mkdtemp(prefix="stabletune-bench-"))
    content = {
        "version": 1,
        "name": "scale",
        "workload": "quadratic",
        "search_space": "adam_lr_beta2",
        "budget": {"trials": n_trials},
        "output": str(folder / "run"),
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    config = load_config(folder / "config.yaml", overrides=overrides)
    run = RunFolder(config.output)
    run.create(config.resolved())
    return config, run


def main() -> None:
    given = [int(argument) for argument in sys.argv[1:] if "=" not in argument]
    n_trials, n_workers, median = [*given, *DEFAULTS[len(given) :]]
    overrides = [argument for argument in sys.argv[1:] if "=" in argument]
    config, run = begin(n_trials, overrides)
    source = SearchAlone(config, run)
    cluster = Cluster(SourceSearcher(source, worker_died), n_workers, float(median))
    cluster.run()
    print(f"{n_trials} trials, {n_workers} workers, a trial lasts {median} s in the median {' '.join(overrides)}")
    show_costs(cluster.costs, n_trials)
    figure("driver busy", 100.0 * cluster.busy / cluster.now, "%")
    figure("workers idle for the driver", 100.0 * cluster.idle / (n_workers * cluster.now), "%")
    show_sizes(run, n_trials)
    figure("memory of the driver", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0, "MiB", "<= 600")
    del source, cluster  # a driver that goes on holds one study, not two
    again, seconds = Costs().of("resume", lambda: SearchAlone(config, run, resume=True))
    figure("going on with it (--resume)", seconds, "s CPU")
    show_ending(config, run, again)


def show_ending(config: Config, run: RunFolder, source: SearchAlone) -> None:
    """What comes after the search: the proof looks at every candidate after each of its runs; the report at the end."""
    phase = source.phase
    proof = ConfirmationPhase(
        config,
        source.study,
        run,
        phase.candidates(),
        trials=phase.observations,
        others=phase.other_runs,
        listener=Listener(),
    )
    _, seconds = Costs().of("proof", lambda: proof.standing)
    figure("the proof's look at all candidates, after each of its runs", seconds, "s CPU")
    _, seconds = Costs().of("report", lambda: write_report(run))
    figure("report.html", seconds, "s CPU")
    figure("report.html", run.report_path.stat().st_size / 2.0**20, "MiB")
    figure("memory with proof and report", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0, "MiB")


def show_costs(costs: Costs, n_trials: int) -> None:
    results, suggestions, reports = (1e3 * np.array(costs.cpu[kind]) for kind in ("result", "suggestion", "report"))
    wall = 1e3 * (np.array(costs.wall["result"]) + np.array(costs.wall["suggestion"])[: len(costs.wall["result"])])
    trials = results + suggestions[: results.size]
    figure("driver, a trial, median", float(np.median(trials)), "ms CPU", "<= 20")
    figure("driver, a trial, mean", float(np.mean(trials)), "ms CPU")
    for at in (100, 200, 1000, n_trials):
        if WINDOW // 2 <= at <= n_trials:
            figure(f"driver, a trial at {at}", float(np.median(trials[max(0, at - WINDOW) : at])), "ms CPU")
    figure("driver, a trial, median by the clock, disks counted", float(np.median(wall)), "ms")
    figure("suggestion, median", float(np.median(suggestions)), "ms CPU")
    figure("suggestion, 99 of 100 within", float(np.quantile(suggestions, 0.99)), "ms CPU")
    figure("result, median", float(np.median(results)), "ms CPU")
    figure("report, mean", float(np.mean(reports)), "ms CPU")


def show_sizes(run: RunFolder, n_trials: int) -> None:
    curves = [path.stat().st_size for path in (run.path / "trials").rglob("*") if path.is_file()]
    for path in (run.journal_path, run.trials.path):
        if path.exists():
            figure(f"{path.name}, a trial", path.stat().st_size / n_trials / 1024.0, "KiB")
    figure("trials/, a trial", sum(curves) / n_trials / 1024.0, "KiB")
    figure("files in trials/, a trial", len(curves) / n_trials, "")


if __name__ == "__main__":
    main()
