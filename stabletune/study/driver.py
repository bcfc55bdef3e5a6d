"""One driver of a study: first its search, then its proof, and what is written at the end.

It decides nothing of its own but when to stop and, where other drivers share the study, when to look at what they did.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from typing import Any

from stabletune.config import Config
from stabletune.records import Progress, TrialResult, TrialSpec
from stabletune.results.report import write_report
from stabletune.results.store import RunFolder
from stabletune.study.listener import Listener
from stabletune.study.optuna_study import SearchStudy
from stabletune.study.prediction.importance import importance
from stabletune.study.prediction.outlook import Outlook
from stabletune.study.prediction.stability_map import lr_margin, stability_map
from stabletune.study.proof.confirm import ConfirmationPhase
from stabletune.study.proof.front import front, point_of
from stabletune.study.proof.outcome import Proof, StudyResult, explain_failure, recommend
from stabletune.study.proof.plan import BASELINE
from stabletune.study.trials.search_phase import SearchPhase
from stabletune.study.trials.warm_start import Lessons
from stabletune.study.under_way import RunsUnderWay

SECONDS_BETWEEN_QUESTIONS, SECONDS_BETWEEN_LOOKS = 1.0, 5.0


class Driver:
    """A ``TrialSource`` that is first the search, then the proof, until it is over or out of time."""

    def __init__(
        self, config: Config, study: SearchStudy, folder: RunFolder, *, lessons: Lessons, listener: Listener
    ) -> None:
        self._config, self._study, self._folder, self._listener = config, study, folder, listener
        self._search = SearchPhase(config, study, folder, lessons=lessons, listener=listener)
        self._proof: ConfirmationPhase | None = None
        self._under_way = RunsUnderWay(folder)
        self._error: Exception | None = None
        self._asked_in_vain_at = self._looked_at = -math.inf
        self._device = study.attribute("device", "")
        minutes = config.budget.wall_minutes
        self._deadline = None if minutes is None else time.monotonic() + 60.0 * minutes

    @property
    def is_over(self) -> bool:
        """Whether the proof has ended, time is up, or an error ended it all."""
        if self._error is None and not self._is_out_of_time:
            with self._kept_error():
                self._enter_proof_if_due()
                return self._proof is not None and self._proof.is_over
        return True

    def next_spec(self) -> TrialSpec | None:
        """The phase's next; with nothing under way it waits while other drivers are at what is left."""
        while not self.is_over:
            if time.monotonic() - self._asked_in_vain_at >= SECONDS_BETWEEN_QUESTIONS:
                spec = self._ask()
                if spec is not None:
                    self._under_way.start(spec)
                    return spec
            if self._study.drivers is None or len(self._under_way):
                return None
            time.sleep(SECONDS_BETWEEN_QUESTIONS)
        return None

    def _ask(self) -> TrialSpec | None:
        with self._kept_error():
            spec = self._phase.next_spec()
            if spec is None and self._study.drivers is not None:
                self._asked_in_vain_at = time.monotonic()
            return spec
        return None

    def on_progress(self, progress: Progress) -> bool:
        """Pass it on to the phase; False too when everything ends."""
        if self._error is not None or self._is_out_of_time:
            return False
        self._under_way.report(progress)
        if self._study.drivers is not None and time.monotonic() - self._looked_at >= SECONDS_BETWEEN_LOOKS:
            self._looked_at = time.monotonic()
            with self._kept_error():
                self._study.exclusively(self._phase.refresh)
        return self._phase.on_progress(progress)

    def on_result(self, result: TrialResult) -> None:
        """Pass it on to the phase."""
        self._asked_in_vain_at = -math.inf
        with self._kept_error():
            self._under_way.end(result.spec)
            if result.device and result.device != self._device:
                self._device = result.device
                self._study.set_attribute("device", result.device)
            self._phase.on_result(result)

    def on_abandoned(self, spec: TrialSpec, steps: int) -> None:
        """Pass it on to the phase."""
        self._asked_in_vain_at = -math.inf
        with self._kept_error():
            self._under_way.end(spec)
            self._phase.on_abandoned(spec, steps)

    @contextlib.contextmanager
    def _kept_error(self) -> Iterator[None]:
        """Keep an error until the executor has returned, which would lose it or wrap it."""
        try:
            yield
        except Exception as error:
            self._error = self._error or error

    def raise_what_stopped_it(self) -> None:
        """Raise the error that ended the study, outside the executor's own loop."""
        if self._error is not None:
            raise self._error

    def conclude(self) -> StudyResult:
        """Write what there is to write and say how it ended."""
        if self._study.drivers is not None:
            self._study.exclusively(self._settle)
        result = self._result()
        self._folder.write_analysis(
            {
                "ending": result.ending,
                "outcome": result.message,
                "stability_map": self._stability_map(),
                "front": self._front(),
                "importance": importance(self._config, self._outlook, self._search.judged_trials),
            }
        )
        write_report(self._folder)
        self._listener.on_end(result)
        return result

    def _settle(self) -> None:
        """Bring what this driver knows and its tables to what the drivers have found together."""
        self._device = self._study.attribute("device", "")
        for phase in (self._search, self._proof):
            if phase is not None:
                phase.refresh()
                phase.write_table()

    def _result(self) -> StudyResult:
        n_trials = self._search.n_finished
        if self._proof is None or not self._proof.is_over:
            message = "The time of budget.wall_minutes ended before the proof was complete. Go on with --resume."
            return StudyResult("out_of_time", message, self._folder.path, n_trials)
        self._folder.forget_checkpoints()
        winner = self._proof.winner
        if winner is None:
            self._folder.recommendation_path.unlink(missing_ok=True)
            self._folder.forget_comparison()
            message = explain_failure(
                self._config,
                self._search.candidates(),
                self._proof.evidence,
                n_sent=self._proof.n_sent,
                all_diverged=self._search.all_diverged,
                diagnoses=self._search.diagnoses,
            )
            return StudyResult("nothing_survived", message, self._folder.path, n_trials)
        proof = Proof(
            winner=winner,
            baseline_runs=self._proof.baseline_runs,
            n_sent=self._proof.n_sent,
            steps_spent=self._search.steps_spent + self._proof.steps_spent + self._study.abandoned_steps,
            device=self._device,
        )
        margin = lr_margin(self._config, self._proof.standing.outlook, winner.candidate.observation)
        hardly = self._outlook.has_hardly_fallen(winner.objective, winner.candidate.observation)
        recommendation = recommend(
            self._config, proof, lr_margin=margin, point=point_of(self._front()), has_hardly_fallen=hardly
        )
        earlier = self._folder.recommendation()
        if earlier is None or dict(earlier.settings) != dict(recommendation.settings):
            self._folder.forget_comparison()
        recommendation.save(self._folder.recommendation_path)
        message = f"Trial {winner.candidate.number} is recommended."
        return StudyResult("recommended", message, self._folder.path, n_trials, recommendation)

    def _front(self) -> list[dict[str, Any]]:
        if self._proof is None or not self._config.objective.tradeoff:
            return []
        return front(self._proof.standing.prospects, self._proof.winner if self._proof.is_over else None)

    def _stability_map(self) -> dict[str, Any] | None:
        """Around the winner, or else around the baseline."""
        winner = self._proof.winner if self._proof is not None else None
        baseline = next((run for run in self._search.observations if run.number == BASELINE), None)
        around = winner.candidate.observation if winner is not None else baseline
        return None if around is None else stability_map(self._config, self._outlook, around)

    @property
    def _outlook(self) -> Outlook:
        return self._proof.standing.outlook if self._proof is not None else self._search.outlook

    @property
    def _is_out_of_time(self) -> bool:
        return self._deadline is not None and time.monotonic() > self._deadline

    @property
    def _phase(self) -> SearchPhase | ConfirmationPhase:
        return self._proof or self._search

    def _enter_proof_if_due(self) -> None:
        if self._proof is None and self._search.is_over:
            candidates = self._search.candidates()
            self._proof = ConfirmationPhase(
                self._config,
                self._study,
                self._folder,
                candidates,
                trials=self._search.observations,
                others=self._search.other_runs,
                listener=self._listener,
            )
