"""``stabletune compare``: the pilot. Recommended against baseline on fresh seeds, nothing stopped early."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from stabletune.config import Config, load_config
from stabletune.errors import FailedTrials, OutputFolderError
from stabletune.judgement.objective import objective_of, over_seeds, ratio_to_baseline
from stabletune.records import Progress, Purpose, TrialResult, TrialSpec
from stabletune.results.binomial import spiky_run_rate_upper
from stabletune.results.report import write_report
from stabletune.results.store import RunFolder
from stabletune.study.executors import load_executor
from stabletune.study.listener import Listener
from stabletune.study.optuna_study import SearchStudy
from stabletune.study.specs import trial_spec

ARMS: tuple[Purpose, Purpose] = ("recommended", "baseline")
LEVEL = 0.05


@dataclasses.dataclass(frozen=True)
class Arm:
    """One side of the comparison: its runs over the seeds."""

    results: tuple[TrialResult, ...]

    @property
    def n_spiky(self) -> int:
        """Runs that spiked or diverged."""
        return sum(result.is_spiky for result in self.results)

    @property
    def spiky_rate_upper(self) -> float:
        """Exact upper 95 % bound of the rate of spiky runs."""
        return spiky_run_rate_upper(self.n_spiky, len(self.results), LEVEL)

    @property
    def objectives(self) -> list[float]:
        """The objective of each run, infinite where it was not reached."""
        return [math.inf if result.objective is None else result.objective for result in self.results]

    @property
    def objective(self) -> float:
        """The median over seeds."""
        return over_seeds(self.objectives)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Both arms on the same seeds, in the same order."""

    metric: str
    source: str
    steps: int
    recommended: Arm
    baseline: Arm

    def ratio_interval(self) -> tuple[float, float, float] | None:
        """Geometric mean of the paired ratios of objectives with its 95 % t-interval.

        ``exp(mean(log r) -+ t sem(log r))`` over the pairs of finite objectives, positive ones unless they are
        logarithms; None with fewer than two of them.
        """
        lowest = -math.inf if self.metric == "loss_auc" and self.source == "train" else 0.0
        pairs = zip(self.recommended.objectives, self.baseline.objectives, strict=True)
        comparable = [pair for pair in pairs if lowest < min(pair) and max(pair) < math.inf]
        ratios = [ratio_to_baseline(self.metric, mine, its, source=self.source) for mine, its in comparable]
        logs = np.log(np.array([ratio for ratio in ratios if ratio > 0.0]))
        if logs.size < 2:
            return None
        half = stats.t.ppf(1.0 - LEVEL / 2.0, logs.size - 1) * stats.sem(logs)
        middle = float(logs.mean())
        with np.errstate(over="ignore"):  # two seeds of losses that are decades apart bound nothing
            middle, low, high = (float(np.exp(value)) for value in (middle, middle - half, middle + half))
        return middle, low, high

    def steps_to_baseline(self) -> float | None:
        """Steps until the recommended run is at its baseline's final loss, the median over pairs of seeds.

        The first step whose trailing median of 20 is at or below the median of the baseline's last 5 %; infinite if
        that takes longer than the runs are. None if no baseline run kept a finite loss.
        """
        needed = []
        for mine, its in zip(self.recommended.results, self.baseline.results, strict=True):
            if its.status == "diverged" or not its.losses.size:
                continue
            goal = objective_of("final_loss", its.losses)
            steps = objective_of("steps_to_target", np.nan_to_num(mine.losses, nan=np.inf), target=goal)
            needed.append(steps if steps <= mine.losses.size else math.inf)
        return over_seeds(needed) if needed else None

    def as_data(self) -> dict[str, Any]:
        """Everything that is shown of it, as plain data."""
        arms = {"recommended": self.recommended, "baseline": self.baseline}
        return {
            "metric": self.metric,
            "source": self.source,
            "steps": self.steps,
            "n_seeds": len(self.baseline.results),
            "ratio": self.ratio_interval(),
            "steps_to_baseline": self.steps_to_baseline(),
            **{
                name: {
                    "n_spiky": arm.n_spiky,
                    "spiky_rate_upper": arm.spiky_rate_upper,
                    "objective": arm.objective,
                    "objectives": arm.objectives,
                }
                for name, arm in arms.items()
            },
        }


def compare(
    run_dir: str | Path,
    *,
    n_seeds: int | None = None,
    steps: int | None = None,
    listener: Listener | None = None,
    executor: str = "ray_tune",
) -> Comparison:
    """Run the recommended settings and the baseline on fresh seeds; the report then shows the comparison.

    Args:
        run_dir: the folder of a search that ended with a recommendation.
        n_seeds: seeds for each arm; ``budget.confirm_seeds`` unless given.
        steps: of each run; the full horizon unless given.
        listener: told of every event.
        executor: see ``search``.

    Raises:
        OutputFolderError: there is no recommendation in the folder, or its study is gone.
        FailedTrials: a run failed; with the traceback of the user's code.
    """
    folder = RunFolder(run_dir)
    values = folder.proven_recommendation().values()
    with folder.claimed():
        config = load_config(folder.path / "config.yaml")
        specs = _specs(config, folder, values, n_seeds or config.budget.confirm_seeds, steps)
        source = _Runs(specs, listener or Listener())
        load_executor(executor, config.resources, config.workload.file).run(source)
        source.raise_if_a_run_failed()
        recommended, baseline = (tuple(r for r in source.results() if r.spec.purpose == arm) for arm in ARMS)
        objective = config.objective
        found = Comparison(objective.metric, objective.source, specs[0].steps, Arm(recommended), Arm(baseline))
        folder.write_comparison(found.as_data())
        write_report(folder)
    return found


def _specs(
    config: Config, folder: RunFolder, values: Mapping[str, Any], n_seeds: int, steps: int | None
) -> list[TrialSpec]:
    """Both arms on each of ``n_seeds`` fresh seeds."""
    study = _open_study(config, folder)
    specs = []
    for _ in range(n_seeds):
        seed = study.fresh_seed()
        for arm, arm_values in zip(ARMS, (values, {}), strict=True):
            spec = trial_spec(config, 0, arm_values, purpose=arm, seed=seed)
            specs.append(dataclasses.replace(spec, steps=steps or spec.steps))
    return specs


def _open_study(config: Config, folder: RunFolder) -> SearchStudy:
    """The study of the search: it knows which seeds are used."""
    place = config.storage or str(folder.journal_path)
    if config.storage is not None or folder.journal_path.exists():
        study = SearchStudy(config, folder.journal_path, beginning="again")
        if study.trials():
            return study
    raise OutputFolderError(
        f"{folder.path}: the study of the search must be there, so that no seed is used twice, but got none in "
        f"{place}. Restore it, or search anew."
    )


class _Runs:
    """A ``TrialSource`` of a fixed list of runs."""

    def __init__(self, specs: list[TrialSpec], listener: Listener) -> None:
        self._specs, self._waiting, self._listener = specs, list(specs), listener
        self._results: dict[tuple[int, str], TrialResult] = {}
        listener.on_comparison(len(specs))

    @property
    def is_over(self) -> bool:
        return len(self._results) == len(self._specs) or self._failed() is not None

    def raise_if_a_run_failed(self) -> None:
        """A comparison with holes says nothing, so the first failure ends it."""
        failed = self._failed()
        if failed is None:
            return
        arm, seed = failed.spec.purpose, failed.spec.seed
        raise FailedTrials(
            f"compare: every run must end, but the {arm} settings failed with seed {seed}: {failed.reason}",
            failed.traceback or "",
        )

    def results(self) -> list[TrialResult]:
        """In the order of the list."""
        return [self._results[spec.seed, spec.purpose] for spec in self._specs]

    def next_spec(self) -> TrialSpec | None:
        if not self._waiting:
            return None
        spec = self._waiting.pop(0)
        self._listener.on_start(spec)
        return spec

    def on_progress(self, progress: Progress) -> bool:
        self._listener.on_progress(progress)
        return True

    def on_result(self, result: TrialResult) -> None:
        self._results[result.spec.seed, result.spec.purpose] = result
        self._listener.on_result(result)

    def _failed(self) -> TrialResult | None:
        return next((result for result in self._results.values() if result.status == "failed"), None)

    def on_abandoned(self, spec: TrialSpec, steps: int) -> None:
        self._listener.on_abandoned(spec, steps)
