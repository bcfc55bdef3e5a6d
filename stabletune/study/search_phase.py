"""The search: trials asked of the sampler, run, told back, until the budget of trials is used."""

from __future__ import annotations

from typing import Any

from stabletune.config import Config
from stabletune.errors import BaselineFailed, RepeatedFailures
from stabletune.records import Progress, TrialResult, TrialSpec
from stabletune.results.curves import finite_or_none
from stabletune.results.rows import trial_row
from stabletune.results.store import RunFolder
from stabletune.study.feasibility import LARGEST, constraint_of, instability
from stabletune.study.listener import Listener
from stabletune.study.optuna_study import Judged, SearchStudy
from stabletune.study.prediction.observation import Observation, observe
from stabletune.study.prediction.outlook import Outlook
from stabletune.study.prediction.pace import pace_limits
from stabletune.study.prediction.place import place_of
from stabletune.study.proof.prospects import Candidate
from stabletune.study.specs import all_settings, trial_spec

MOST_FAILURES_IN_A_ROW = 5


class SearchPhase:
    """A ``TrialSource`` of search trials.

    Raises:
        BaselineFailed, RepeatedFailures: from ``on_result``.
    """

    def __init__(self, config: Config, study: SearchStudy, folder: RunFolder, listener: Listener) -> None:
        self._config, self._study, self._folder, self._listener = config, study, folder, listener
        self._waiting = study.unfinished()
        self._finished = study.records()
        self._observed = [_observed(attributes) for attributes in self._finished]
        self._seen: tuple[int, Outlook] | None = None
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
            self._waiting.append((self._study.add_baseline(), {}) if n_known == 0 else self._study.ask(self._judged))
        number, values = self._waiting.pop(0)
        self._n_running += 1
        spec = trial_spec(self._config, number, values, pace_limits=pace_limits(self._config, self._outlook()))
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
        self._observed.append(_observed(attributes))
        self._listener.on_result(result)
        self._count_failures(result)

    def on_abandoned(self, spec: TrialSpec, steps: int) -> None:
        """The study was stopped: the trial stays unfinished, to be run again on resume."""
        self._n_running -= 1
        self._study.add_abandoned_steps(steps)
        self._listener.on_abandoned(spec, steps)

    def candidates(self) -> list[Candidate]:
        """Every trial that ended without a spike, those that were only slow among them."""
        return [
            Candidate(attributes["row"]["trial"], attributes["values"], observation)
            for attributes, observation in zip(self._finished, self._observed, strict=True)
            if observation is not None and attributes["is_candidate"]
        ]

    @property
    def observations(self) -> list[Observation]:
        """What the finished trials showed."""
        return [observation for observation in self._observed if observation is not None]

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
        settings = all_settings(result.spec)
        observation = observe(result, place_of(settings, self._config.search_space))
        is_slow = result.status == "pruned"
        return {
            "row": finite_or_none(trial_row(result)),
            "values": {name: settings[name] for name in self._config.search_space.ranges if result.spec.number},
            "settings": settings,
            "instability": instability(result),
            "observation": observation.as_data() if observation else None,
            "is_candidate": not result.is_spiky and (is_slow or result.objective is not None),
        }

    def _outlook(self) -> Outlook:
        """What the finished trials say, looked at once for each number of them."""
        if self._seen is None or self._seen[0] != len(self._finished):
            self._seen = (len(self._finished), Outlook(self._config, self.observations))
        return self._seen[1]

    def _judged(self) -> list[Judged]:
        """The trials that are remembered, each with its predicted value, and its predicted survival as a constraint."""
        outlook = self._outlook()
        runs = outlook.trials
        found = zip(runs, outlook.values(runs), outlook.survival(runs), strict=True)
        by_number = {attributes["row"]["trial"]: attributes for attributes in self._finished}
        return [
            Judged(
                by_number[run.number]["settings"],
                min(value, LARGEST) if not run.has_spiked else min(outlook.untrained, LARGEST),
                by_number[run.number]["instability"] if run.has_spiked else constraint_of(float(survival)),
            )
            for run, value, survival in found
        ]

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


def _observed(attributes: dict[str, Any]) -> Observation | None:
    return Observation(**attributes["observation"]) if attributes["observation"] else None
