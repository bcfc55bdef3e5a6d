"""``search``: from a configuration to a proven recommendation, in one call.

Flows in: a config file. Flows out: the run folder and a ``StudyResult``. It connects the search and the proof to an
executor and stops them when time is up; every decision is made elsewhere.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stabletune.config import Config, load_config
from stabletune.errors import BaselineFailed, ConfigError, ResourceError, StabletuneError
from stabletune.records import Progress, TrialResult, TrialSpec
from stabletune.results.report import write_report
from stabletune.results.store import RunFolder
from stabletune.study.executors import Executor, load_executor
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
from stabletune.study.trials.warm_start import Lessons, keep, learn, recall
from stabletune.study.under_way import RunsUnderWay


def search(
    config: str | Path | Config,
    *,
    output: str | Path | None = None,
    resume: bool = False,
    overrides: Sequence[str] = (),
    listener: Listener | None = None,
    executor: str = "ray_tune",
) -> StudyResult:
    """Search for settings that are spike-free yet fast, and prove them.

    Args:
        config: path of a config file, or one that is loaded.
        output: the run folder; the config's own unless given.
        resume: go on with the search in that folder.
        overrides: ``key=value`` settings that replace the config's.
        listener: told of every event.
        executor: ``ray_tune`` or ``inline``.

    Returns:
        How it ended; the recommendation is also in the folder.

    Raises:
        ConfigError, OutputFolderError, ResourceError: what was asked for cannot be started.
        BaselineFailed, RepeatedFailures: the user's code does not run.
        KeyboardInterrupt: the search was interrupted; ``resume`` goes on with it.
    """
    if not isinstance(config, Config):
        config = load_config(config, overrides=overrides, output=output)
    if config.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise ConfigError(
            "tensorboard: must be false where the package is not installed, but got true. "
            "pip install 'stabletune[tensorboard]', or leave it out."
        )
    folder = RunFolder(config.output, tensorboard=config.tensorboard)
    is_new, listener = not (resume and folder.exists()), listener or Listener()
    if is_new and resume:
        listener.on_note(f"--resume: there is no search in {folder.path} to go on with; a new one begins.")
    lessons = learn(config) if is_new else None
    runner = load_executor(executor, config.resources, config.workload.file)
    if is_new:
        folder.create(config.resolved())
    with folder.claimed():
        if not is_new:
            _take_up(folder, config, listener)
        return _search(folder, config, lessons, runner, listener)


def _take_up(folder: RunFolder, config: Config, listener: Listener) -> None:
    """Go on in a folder whose config is the same but for its budget, and say what of that is new."""
    differing = config.difference(folder.config())
    if differing:
        raise ConfigError(
            f"--resume: only budget may differ from {folder.path / 'config.yaml'}, but got other values for "
            f"{', '.join(differing).replace('workload_sha256', 'the source of the workload (workload_sha256)')}. "
            "Restore them, or start another search with --output."
        )
    then = folder.config().get("budget") or {}
    for name, value in config.resolved()["budget"].items():
        if name in then and then[name] != value:
            listener.on_note(f"--resume: budget.{name} was {then[name]} and is {value} from now on.")
    folder.write_config(config.resolved())


def _search(
    folder: RunFolder, config: Config, lessons: Lessons | None, runner: Executor, listener: Listener
) -> StudyResult:
    """Search in a folder that is claimed; one that cannot even begin is given back. Without lessons it goes on."""
    is_new = lessons is not None
    try:
        study = SearchStudy(config, folder.journal_path, resume=not is_new)
        if lessons is None:
            lessons = recall(study, config)
        else:
            keep(lessons, study)
    except StabletuneError:
        if is_new:
            folder.discard()
        raise
    try:
        driver = _Driver(config, study, folder, lessons=lessons, listener=listener)
        if not driver.is_over:
            runner.run(driver)
        driver.raise_what_stopped_it()
    except (BaselineFailed, ResourceError):
        if is_new:
            study.discard()
            folder.discard()
        raise
    return driver.conclude()


class _Driver:
    """A ``TrialSource`` that is first the search, then the proof, until it is over or out of time."""

    def __init__(
        self, config: Config, study: SearchStudy, folder: RunFolder, *, lessons: Lessons, listener: Listener
    ) -> None:
        self._config, self._study, self._folder, self._listener = config, study, folder, listener
        self._search = SearchPhase(config, study, folder, lessons=lessons, listener=listener)
        self._proof: ConfirmationPhase | None = None
        self._under_way = RunsUnderWay(folder)
        self._error: Exception | None = None
        self._device = study.attribute("device", "")
        minutes = config.budget.wall_minutes
        self._deadline = None if minutes is None else time.monotonic() + 60.0 * minutes

    @property
    def is_over(self) -> bool:
        if self._error is not None or self._is_out_of_time:
            return True
        self._enter_proof_if_due()
        return self._proof is not None and self._proof.is_over

    def next_spec(self) -> TrialSpec | None:
        if self.is_over:
            return None
        spec = self._phase.next_spec()
        if spec is not None:
            self._under_way.start(spec)
        return spec

    def on_progress(self, progress: Progress) -> bool:
        if self._error is not None or self._is_out_of_time:
            return False
        self._under_way.report(progress)
        return self._phase.on_progress(progress)

    def on_result(self, result: TrialResult) -> None:
        try:
            self._under_way.end(result.spec)
            if result.device and result.device != self._device:
                self._device = result.device
                self._study.set_attribute("device", result.device)
            self._phase.on_result(result)
        except Exception as error:
            self._error = self._error or error

    def on_abandoned(self, spec: TrialSpec, steps: int) -> None:
        self._under_way.end(spec)
        self._phase.on_abandoned(spec, steps)

    def raise_what_stopped_it(self) -> None:
        """Raise the error that ended the study, outside the executor's own loop."""
        if self._error is not None:
            raise self._error

    def conclude(self) -> StudyResult:
        """Write what there is to write and say how it ended."""
        self._folder.forget_running()
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
