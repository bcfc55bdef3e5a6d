"""``stabletune compare``: the pilot. Recommended against baseline on fresh seeds, nothing stopped early."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
from scipy import stats

from stabletune.config import load_config
from stabletune.hyperparameters import HYPERPARAMETERS, WORKLOAD_ARGS
from stabletune.judgement.objective import over_seeds
from stabletune.records import Progress, TrialResult, TrialSpec
from stabletune.results.binomial import spiky_run_rate_upper
from stabletune.results.store import RunFolder
from stabletune.study.executors import load_executor
from stabletune.study.listener import Listener
from stabletune.study.optuna_study import SearchStudy
from stabletune.study.specs import trial_spec

ARMS = ("recommended", "baseline")
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
    steps: int
    recommended: Arm
    baseline: Arm

    def ratio_interval(self) -> tuple[float, float, float] | None:
        """Mean paired ratio of objectives with its 95 % t-interval; None with fewer than two comparable pairs.

        Pairs are compared by the difference of logarithms (for ``loss_auc``, which is a logarithm, of the values).
        """
        pairs = list(zip(self.recommended.objectives, self.baseline.objectives, strict=True))
        if self.metric != "loss_auc":
            pairs = [(math.log(a), math.log(b)) for a, b in pairs if a > 0.0 and b > 0.0]
        differences = np.array([a - b for a, b in pairs if math.isfinite(a) and math.isfinite(b)])
        if differences.size < 2:
            return None
        half = stats.t.ppf(1.0 - LEVEL / 2.0, differences.size - 1) * stats.sem(differences)
        middle = float(differences.mean())
        return math.exp(middle), math.exp(middle - half), math.exp(middle + half)


def compare(
    run_dir: str | Path,
    *,
    n_seeds: int | None = None,
    steps: int | None = None,
    listener: Listener | None = None,
    executor: str = "ray_tune",
) -> Comparison:
    """Run the recommended settings and the baseline on fresh seeds.

    Args:
        run_dir: the folder of a search that ended with a recommendation.
        n_seeds: seeds for each arm; ``budget.confirm_seeds`` unless given.
        steps: of each run; the full horizon unless given.
        listener: told of every event.
        executor: see ``search``.

    Raises:
        OutputFolderError: there is no recommendation in the folder.
    """
    folder = RunFolder(run_dir)
    settings = folder.proven_recommendation().settings
    config = load_config(folder.path / "config.yaml")
    study = SearchStudy(config, folder.journal_path, resume=True)
    values = {name: settings[name] for name in HYPERPARAMETERS if name in settings}
    values["warmup_ratio"] = settings["schedule"]["warmup_ratio"]
    values |= {WORKLOAD_ARGS + name: value for name, value in settings.get("workload_args", {}).items()}
    specs = []
    for _ in range(n_seeds or config.budget.confirm_seeds):
        seed = study.fresh_seed()
        for number, arm_values in enumerate((values, {})):
            spec = trial_spec(config, number, arm_values, purpose="baseline", seed=seed)
            specs.append(dataclasses.replace(spec, steps=steps or spec.steps))
    source = _Runs(specs, listener or Listener())
    load_executor(executor, config.resources).run(source)
    recommended, baseline = (tuple(r for r in source.results() if r.spec.number == arm) for arm in range(len(ARMS)))
    return Comparison(config.objective.metric, specs[0].steps, Arm(recommended), Arm(baseline))


class _Runs:
    """A ``TrialSource`` of a fixed list of runs."""

    def __init__(self, specs: list[TrialSpec], listener: Listener) -> None:
        self._specs, self._waiting, self._listener = specs, list(specs), listener
        self._results: dict[tuple[int, int], TrialResult] = {}

    @property
    def is_over(self) -> bool:
        return len(self._results) == len(self._specs)

    def results(self) -> list[TrialResult]:
        """In the order of the list."""
        return [self._results[spec.seed, spec.number] for spec in self._specs]

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
        self._results[result.spec.seed, result.spec.number] = result
        self._listener.on_result(result)

    def on_abandoned(self, spec: TrialSpec, steps: int) -> None:
        self._listener.on_abandoned(spec, steps)
