"""The search: trials asked of the sampler, run, told back, until the budget of trials is used."""

from __future__ import annotations

from typing import Any

import numpy as np

from stabletune.config import Config
from stabletune.errors import BaselineFailed, RepeatedFailures
from stabletune.hyperparameters import WORKLOAD_ARGS
from stabletune.judgement.history import trailing_median
from stabletune.records import Progress, TrialResult, TrialSpec
from stabletune.results.curves import finite_or_none
from stabletune.results.rows import trial_row
from stabletune.results.store import RunFolder
from stabletune.study.distributions import distributions
from stabletune.study.feasibility import is_unstable
from stabletune.study.listener import Listener
from stabletune.study.optuna_study import SearchStudy
from stabletune.study.proof.candidates import Candidate
from stabletune.study.specs import trial_spec

MOST_FAILURES_IN_A_ROW = 5
FEWEST_TRIALS_FOR_A_LIMIT = 8
SLOW_QUANTILE = 0.75


class SearchPhase:
    """A ``TrialSource`` of search trials.

    Raises:
        BaselineFailed, RepeatedFailures: from ``on_result``.
    """

    def __init__(self, config: Config, study: SearchStudy, folder: RunFolder, listener: Listener) -> None:
        self._config, self._study, self._folder, self._listener = config, study, folder, listener
        self._waiting = study.unfinished()
        self._finished = study.records()
        self._n_running = 0
        if any(a["row"]["trial"] == 0 and a["row"]["status"] == "failed" for a in self._finished):
            raise BaselineFailed(
                "trial 0, the baseline, must have run, but it failed when this search was started. "
                "Start another search with --output.",
                "",
            )
        self._failures_in_a_row = 0
        folder.trials.rewrite([attributes["row"] for attributes in self._finished])
        listener.on_search(config.budget.trials, len(self._finished))

    @property
    def is_over(self) -> bool:
        """Whether the budget of trials is used."""
        return len(self._finished) >= self._config.budget.trials and not self._n_running

    def next_spec(self) -> TrialSpec | None:
        """A trial left unfinished by a crash, else the baseline, else the sampler's next."""
        if not self._waiting:
            n_known = len(self._finished) + self._n_running
            if n_known >= self._config.budget.trials:
                return None
            self._waiting.append((self._study.add_baseline(), {}) if n_known == 0 else self._study.ask())
        number, values = self._waiting.pop(0)
        self._n_running += 1
        spec = trial_spec(self._config, number, values, slow_limit=self._slow_limit())
        self._listener.on_start(spec)
        return spec

    def on_progress(self, progress: Progress) -> bool:
        """Search trials are judged by their own stoppers alone."""
        self._listener.on_progress(progress)
        return True

    def on_result(self, result: TrialResult) -> None:
        """Write the trial's files, then tell the study, then judge failures."""
        self._n_running -= 1
        self._folder.record(result)
        attributes = self._attributes(result)
        objectives = [a["row"]["objective"] for a in self._finished if a["row"]["objective"] is not None]
        self._study.tell(result, attributes, worst=max(objectives, default=None))
        self._finished.append(attributes)
        self._listener.on_result(result)
        self._count_failures(result)

    def on_abandoned(self, spec: TrialSpec, steps: int) -> None:
        """The study was stopped: the trial stays unfinished, to be run again on resume."""
        self._n_running -= 1
        self._study.add_abandoned_steps(steps)
        self._listener.on_abandoned(spec, steps)

    def candidates(self) -> list[Candidate]:
        """Every completed trial without a spike, with its place in the unit cube of the search space."""
        return [
            Candidate(
                number=attributes["row"]["trial"],
                values=attributes["values"],
                objective=attributes["row"]["objective"],
                risk=attributes["risk"],
                place=_place(attributes["settings"], self._config),
            )
            for attributes in self._finished
            if attributes["is_candidate"]
        ]

    @property
    def n_finished(self) -> int:
        """Trials that have ended, however they ended."""
        return len(self._finished)

    @property
    def all_diverged(self) -> bool:
        """Whether no trial at all kept a finite loss."""
        return all(attributes["row"]["status"] == "diverged" for attributes in self._finished)

    @property
    def diagnoses(self) -> list[tuple[str, str]]:
        """Cause and remedy of the worst spike of each trial that had one."""
        rows = [attributes["row"] for attributes in self._finished]
        return [(row["cause"], row["remedy"]) for row in rows if row.get("cause")]

    @property
    def steps_spent(self) -> int:
        """Optimizer steps of the search's finished trials."""
        return sum(attributes["row"]["steps"] for attributes in self._finished)

    def _attributes(self, result: TrialResult) -> dict[str, Any]:
        row = finite_or_none(trial_row(result))
        middle = _middle(self._config)
        has_middle = result.steps >= middle and not is_unstable(result) and result.status != "failed"
        settings = {**result.spec.params, **{WORKLOAD_ARGS + k: v for k, v in result.spec.workload_args.items()}}
        return {
            "row": row,
            "values": {name: settings[name] for name in self._config.search_space.ranges if result.spec.number},
            "settings": settings,
            "risk": result.risk,
            "trial_steps": result.spec.steps,
            "loss_at_middle": trailing_median(result.losses.tolist(), middle) if has_middle else None,
            "is_candidate": result.status == "completed" and not result.is_spiky and result.objective is not None,
        }

    def _slow_limit(self) -> tuple[int, float] | None:
        budget = self._config.budget
        alike = [a for a in self._finished if a["trial_steps"] == budget.trial_steps]
        losses = [a["loss_at_middle"] for a in alike if a["loss_at_middle"] is not None]
        if self._config.objective.source == "eval" or len(losses) < FEWEST_TRIALS_FOR_A_LIMIT:
            return None
        return _middle(self._config), float(np.quantile(losses, SLOW_QUANTILE))

    def _count_failures(self, result: TrialResult) -> None:
        if result.status != "failed":
            self._failures_in_a_row = 0
            return
        self._failures_in_a_row += 1
        trace = result.traceback or ""
        if result.spec.number == 0:
            raise BaselineFailed(f"trial 0, the baseline, must run, but it failed: {result.reason}", trace)
        if self._failures_in_a_row >= MOST_FAILURES_IN_A_ROW:
            raise RepeatedFailures(
                f"trial {result.spec.number}: at most {MOST_FAILURES_IN_A_ROW - 1} trials may fail in a row, "
                f"but got {self._failures_in_a_row}; the last: {result.reason}",
                trace,
            )


def _middle(config: Config) -> int:
    return max(1, config.budget.trial_steps // 2)


def _place(settings: dict[str, Any], config: Config) -> tuple[float, ...]:
    place = []
    for name, (stored_name, distribution) in distributions(config.search_space).items():
        value = settings.get(name)
        place.append(_unit(value if stored_name == name or value is None else 1.0 - value, distribution))
    return tuple(place)


def _unit(value: Any, distribution: Any) -> float:
    if hasattr(distribution, "choices"):
        return distribution.choices.index(value) / len(distribution.choices) if value in distribution.choices else -1.0
    if value is None:
        return -1.0
    transform = np.log if distribution.log else float
    low, high = transform(distribution.low), transform(distribution.high)
    return float((transform(value) - low) / (high - low)) if high > low else 0.0
