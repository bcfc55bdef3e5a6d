"""``search``: from a configuration to a proven recommendation, in one call.

Flows in: a config file. Flows out: the run folder and a ``StudyResult``. It claims the folder, opens the study and
hands an executor the ``Driver``; every decision is made elsewhere.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from stabletune.config import Config, load_config
from stabletune.errors import BaselineFailed, ConfigError, ResourceError, StabletuneError
from stabletune.results.store import RunFolder
from stabletune.study.driver import Driver
from stabletune.study.executors import Executor, load_executor
from stabletune.study.listener import Listener
from stabletune.study.optuna_study import SearchStudy
from stabletune.study.proof.outcome import StudyResult
from stabletune.study.sharing.storage import Beginning
from stabletune.study.trials.warm_start import Lessons, learn, recall


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
        ClusterError, StorageError: the cluster or the study was lost on the way; ``resume`` goes on.
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
    lessons = learn(config) if is_new else None
    runner = load_executor(executor, config.resources, config.workload.file)
    if is_new:
        folder.make()
    with folder.claimed():
        if is_new:
            folder.create(config.resolved())
        else:
            _take_up(folder, config, listener)
        return _search(folder, config, lessons, runner, listener, may_share=resume)


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
    folder: RunFolder,
    config: Config,
    lessons: Lessons | None,
    runner: Executor,
    listener: Listener,
    *,
    may_share: bool,
) -> StudyResult:
    """Search in a folder that is claimed; one that cannot even begin is given back. Without lessons it goes on."""
    is_new = lessons is not None
    beginning: Beginning = "anew or shared" if may_share else "anew"
    if not is_new:
        beginning = "again or anew" if folder.is_untouched else "again"
    try:
        driver_name = folder.driver() if config.storage else None
        study = SearchStudy(config, folder.journal_path, beginning=beginning, driver=driver_name)
    except StabletuneError:
        if is_new:
            folder.discard()
        raise
    if is_new and may_share:
        follows = f"it joins the study {config.name!r} in storage" if study.has_joined else "a new one begins"
        listener.on_note(f"--resume: there is no search in {folder.path} to go on with; {follows}.")
    try:
        lessons = study.exclusively(lambda: recall(study, config, lessons))
        driver = Driver(config, study, folder, lessons=lessons, listener=listener)
        if not driver.is_over:
            runner.run(driver)
        driver.raise_what_stopped_it()
        return driver.conclude()
    except (BaselineFailed, ResourceError, KeyboardInterrupt) as error:
        if is_new and (isinstance(error, BaselineFailed) or study.is_unused):
            study.discard()
            folder.discard()
        raise
    finally:
        study.leave()
        folder.forget_running()
