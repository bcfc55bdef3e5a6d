"""The search: trials asked of the sampler, run, told back, until the budget of trials is used."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Mapping, Sequence
from typing import Any

from stabletune.config import Config
from stabletune.errors import BaselineFailed, RepeatedFailures
from stabletune.records import Progress, TrialResult, TrialSpec
from stabletune.results.store import RunFolder
from stabletune.study.feasibility import LARGEST, constraint_of
from stabletune.study.listener import Listener
from stabletune.study.optuna_study import SearchStudy
from stabletune.study.prediction.observation import Observation
from stabletune.study.prediction.outlook import REMEMBERED, Outlook
from stabletune.study.prediction.pace import pace_limits
from stabletune.study.proof.prospects import Candidate
from stabletune.study.specs import trial_spec
from stabletune.study.trials.sampler_view import Judged
from stabletune.study.trials.several_seeds import OpenTrial
from stabletune.study.trials.warm_start import Lessons
from stabletune.study.trials.wide_search import failures_in_a_row, trials_between_fits


class SearchPhase:
    """A ``TrialSource`` of search trials.

    Raises:
        BaselineFailed, RepeatedFailures: from ``on_result``.
    """

    def __init__(
        self, config: Config, study: SearchStudy, folder: RunFolder, *, lessons: Lessons, listener: Listener
    ) -> None:
        self._config, self._study, self._folder, self._listener = config, study, folder, listener
        self._lessons = lessons
        self._waiting: list[int] = []
        self._n_elsewhere = 0
        self._finished: list[dict[str, Any]] = []
        self._settings: dict[int, dict[str, Any]] = {}
        self._worst: float | None = None
        self._observed: list[Observation | None] = []
        self._of_more_seeds: list[list[Observation]] = []
        self._since_fit: list[Observation] = []
        self._seen: tuple[int, Outlook] | None = None
        self._shown: Outlook | None = None
        self._paced: tuple[Outlook, tuple[tuple[int, float], ...]] | None = None
        self._open: dict[int, OpenTrial] = {}
        self._n_running = 0
        self._failures_in_a_row = 0
        study.exclusively(self.refresh)
        self.write_table()
        listener.on_search(config.budget.trials, len(self._finished))

    def refresh(self) -> None:
        """Take in what other drivers have finished, and which trials are unfinished with no driver at them.

        Raises:
            BaselineFailed: it failed before, or for another driver.
        """
        known = {attributes["row"]["trial"] for attributes in self._finished}
        for attributes in self._study.records():
            if attributes["row"]["trial"] not in known:
                self._take(attributes)
                self._open.pop(attributes["row"]["trial"], None)
        if any(a["row"]["trial"] == 0 and a["row"]["status"] == "failed" for a in self._finished):
            raise BaselineFailed(
                "trial 0, the baseline, must have run, but it failed when this search was started. "
                "Start another search with --output.",
                "",
            )
        for number in self._study.taken_over(self._open):
            del self._open[number]
        self._waiting = self._study.unfinished(self._open)
        self._n_elsewhere = self._study.n_elsewhere(self._open)

    def write_table(self) -> None:
        """Write ``trials.csv`` anew from the study."""
        self._folder.trials.rewrite([attributes["row"] for attributes in self._finished])

    @property
    def is_over(self) -> bool:
        """Whether the budget of trials is used."""
        return len(self._finished) >= self._config.budget.trials and not self._open and not self._n_running

    def next_spec(self) -> TrialSpec | None:
        """The next seed of a trial under way, else one left unfinished by a crash, the baseline, the sampler's next."""
        begun = next((trial for trial in self._open.values() if trial.seeds_left), None)
        trial = begun or self._study.exclusively(self._choose)
        if trial is None:
            return None
        self._open[trial.number] = trial
        self._n_running += 1
        limits = self._pace_limits() if trial.number else ()
        seed = trial.seeds_left.pop(0)
        spec = trial_spec(self._config, trial.number, trial.values, seed=seed, pace_limits=limits)
        self._listener.on_start(spec)
        return spec

    def _choose(self) -> OpenTrial | None:
        if self._study.drivers is not None:
            self.refresh()
        n_known = len(self._finished) + len(self._open) + self._n_elsewhere
        if not self._waiting and n_known >= self._config.budget.trials:
            return None
        number, values = self._another(n_known)
        seeds = [self._config.seed, *self._study.trial_seeds(self._config.budget.seeds_per_trial - 1)]
        return OpenTrial(number, values, len(seeds), seeds)

    def on_progress(self, progress: Progress) -> bool:
        """Search trials are judged by their own stoppers; a seed of a trial that is settled is no longer wanted."""
        self._listener.on_progress(progress)
        return progress.number in self._open

    def on_result(self, result: TrialResult) -> None:
        """Keep a run; with the last of its trial write the trial's files, then tell the study, then judge failures."""
        self._n_running -= 1
        trial = self._open.get(result.spec.number)
        if trial is None or trial.n_seeds > 1:
            self._folder.record_seed(result)
        if trial is None:
            self._study.add_abandoned_steps(result.steps)
        else:
            trial.results.append(result)
            if not trial.is_over:
                self._study.note_open_steps(trial.number, sum(run.steps for run in trial.results))
        if trial is not None and trial.is_over:
            self._finish(trial)
        self._listener.on_result(result)
        if trial is not None and trial.is_over:
            self._count_failures(trial.whole())

    def on_abandoned(self, spec: TrialSpec, steps: int) -> None:
        """A run that is no longer wanted; a trial that has none yet stays unfinished, to be run again on resume."""
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
    def judged_trials(self) -> list[tuple[dict[str, Any], Observation]]:
        """The settings of the trials that are remembered or have ended since the last fit, and what each showed."""
        return [(self._settings[run.number], run) for run in (*self.outlook.trials, *self._since_fit)]

    @property
    def other_runs(self) -> list[Observation]:
        """Further seeds of the newest trials, and the runs of earlier searches."""
        of_more_seeds = [run for runs in self._of_more_seeds for run in runs]
        return [*of_more_seeds[-REMEMBERED:], *self._lessons.observations]

    @property
    def outlook(self) -> Outlook:
        """What the finished trials say, looked at once for each number of them, or of ``trials_between_fits``."""
        if self._seen is None or self._is_fit_due:
            self._seen = (len(self._finished), Outlook(self._config, self.observations, self.other_runs))
            self._since_fit = []
        return self._seen[1]

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

    def _finish(self, trial: OpenTrial) -> None:
        whole, attributes = trial.whole(), trial.record(self._config.search_space)
        self._folder.record(whole, row=attributes["row"])
        if self._study.tell(whole, attributes, worst=self._worst):
            self._take(self._study.record(trial.number))
        del self._open[trial.number]
        self._study.show(trial.number, lambda: self._judged_last(attributes))

    def _take(self, attributes: dict[str, Any]) -> None:
        """Add a finished trial to what is known, in order of number, which is the same for all drivers."""
        number, objective = attributes["row"]["trial"], attributes["row"]["objective"]
        place = bisect(self._finished, number, key=lambda known: known["row"]["trial"])
        self._finished.insert(place, attributes)
        self._settings[number] = attributes["settings"]
        if objective is not None:
            self._worst = objective if self._worst is None else max(self._worst, objective)
        observation = Observation(**attributes["observation"]) if attributes["observation"] else None
        self._observed.insert(place, observation)
        if observation is not None:
            self._since_fit.append(observation)
        self._of_more_seeds.insert(place, [Observation(**data) for data in attributes["of_more_seeds"]])

    def _another(self, n_known: int) -> tuple[int, dict[str, Any]]:
        """One left unfinished, else the baseline, then what earlier searches recommended, then the sampler's own."""
        if self._waiting:
            return self._waiting[0], self._study.take_up(self._waiting.pop(0))
        if n_known == 0:
            return self._study.add_baseline(), {}
        to_try = self._lessons.to_try
        if n_known <= len(to_try):
            return self._study.add(to_try[n_known - 1])
        outlook = self.outlook
        is_anew, self._shown = self._shown is not outlook, outlook
        runs = [*self.judged_trials, *self._lessons.runs]
        return self._study.ask(lambda: self._judged(runs, outlook), is_anew=is_anew)

    @property
    def _is_fit_due(self) -> bool:
        """Whether enough trials have ended since the models were fitted last."""
        n_then, n_now = -1 if self._seen is None else self._seen[0], len(self._finished)
        return n_now - n_then >= (1 if self.is_over else trials_between_fits(n_now, self._n_running))

    def _pace_limits(self) -> tuple[tuple[int, float], ...]:
        """The limits of the next trial: the same until the models are fitted anew."""
        outlook = self.outlook
        if self._paced is None or self._paced[0] is not outlook:
            self._paced = (outlook, pace_limits(self._config, outlook))
        return self._paced[1]

    def _judged(self, runs: Sequence[tuple[Mapping[str, Any], Observation]], outlook: Outlook) -> list[Judged]:
        """Runs as the models see them."""
        if self._config.objective.source == "eval":  # a proof run's value is of the full horizon
            short = self._config.budget.trial_steps
            runs = [(settings, run) for settings, run in runs if run.has_spiked or run.steps <= short]
        seen = [run for _, run in runs]
        found = zip(runs, outlook.values(seen), outlook.survival(seen), strict=True)
        return [_judge(settings, run, value, survival, outlook.untrained) for (settings, run), value, survival in found]

    def _judged_last(self, attributes: Mapping[str, Any]) -> Judged | None:
        """The trial that ended last, by the models that the sampler was shown the others by; None if it failed."""
        if not attributes["observation"] or self._shown is None:
            return None
        last = attributes["settings"], Observation(**attributes["observation"])
        return next(iter(self._judged([last], self._shown)), None)

    def _count_failures(self, result: TrialResult) -> None:
        if result.status != "failed":
            self._failures_in_a_row = 0
            return
        self._failures_in_a_row += 1
        trace = result.traceback or ""
        if result.spec.number == 0:
            remedy = ". Mend the workload where the traceback ends." if trace else ""
            raise BaselineFailed(f"trial 0, the baseline, must run, but it failed: {result.reason}{remedy}", trace)
        most = failures_in_a_row(self._n_running + 1)
        if self._failures_in_a_row >= most:
            raise RepeatedFailures(
                f"trial {result.spec.number}: at most {most - 1} trials may fail in a row, "
                f"but got {self._failures_in_a_row}; the last: {result.reason}",
                trace,
            )


def _judge(settings: Mapping[str, Any], run: Observation, value: float, survival: float, untrained: float) -> Judged:
    """Clean runs by their predicted value and survival; others as bad as no training, the worse the earlier."""
    if not run.has_spiked:
        return Judged(settings, min(value, LARGEST), constraint_of(survival))
    return Judged(settings, min(untrained, LARGEST), run.severity)
