"""``stabletune trial``: one instrumented run in this process, the baseline unless told otherwise."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stabletune.config import Config, load_config
from stabletune.config.preflight import check_workload, find_workload
from stabletune.document import read_value
from stabletune.errors import ConfigError, OutputFolderError
from stabletune.hyperparameters import HYPERPARAMETERS, WORKLOAD_ARGS
from stabletune.records import Progress, TrialResult
from stabletune.results.curves import write_curves
from stabletune.study.listener import Listener
from stabletune.study.specs import trial_spec


def run_single_trial(
    config_path: Path,
    params: Sequence[str],
    *,
    steps: int | None = None,
    seed: int | None = None,
    output: Path | None = None,
    overrides: Sequence[str] = (),
    listener: Listener,
) -> TrialResult:
    """Run once to the end, spikes or not.

    Args:
        config_path: of the config file.
        params: ``name=value`` for hyperparameters that differ from the baseline.
        steps: optimizer steps; ``budget.trial_steps`` unless given.
        seed: of the run; the config's unless given.
        output: a folder for the measurements and losses, if they are to be kept.
        overrides: ``key=value`` settings that replace the config's.
        listener: told of the progress.

    Raises:
        ConfigError: the config or a parameter breaks a rule.
        OutputFolderError: the output is no folder to write in; known before the run.
    """
    config = load_config(config_path, overrides=overrides)
    spec = trial_spec(config, 0, _parse(params, config), seed=seed)
    spec = dataclasses.replace(spec, steps=steps or spec.steps, stops_on_spike=False, predicts=False)
    if output is not None:
        _make_folder(output)
    from stabletune.trial.worker import run_trial

    def report(progress: Progress) -> bool:
        listener.on_progress(progress)
        return True

    listener.on_start(spec)
    result = run_trial(spec, report)
    listener.on_result(result)
    if output is not None:
        write_curves(output, result)
    return result


def _make_folder(output: Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputFolderError(
            f"--output: must be a folder to write in, but got {output}: {error.strerror}. Name another one."
        ) from error


def _parse(params: Sequence[str], config: Config) -> dict[str, Any]:
    problems: list[str] = []
    values: dict[str, Any] = {}
    for param in params:
        name, equals, text = param.partition("=")
        hyperparameter = HYPERPARAMETERS.get(name)
        if not equals or (hyperparameter is None and not name.startswith(WORKLOAD_ARGS)):
            known = ", ".join(HYPERPARAMETERS)
            problems.append(f"--param: must be NAME=VALUE, but got {param!r}. Names: {known}, {WORKLOAD_ARGS}NAME.")
            continue
        try:
            value = read_value(text)
        except ValueError as error:
            problems.append(f"--param: {name}: {error}")
            continue
        if hyperparameter is not None and not hyperparameter.accepts(value):
            problems.append(f"--param: {name}: {hyperparameter.rule}, but got {text!r}. Give another value.")
        values[name] = value
    problems += _workload_problems(values, config)
    if problems:
        raise ConfigError(problems)
    return values


def _workload_problems(values: dict[str, Any], config: Config) -> list[str]:
    """What the signature of the workload says against the arguments given."""
    given = [name.removeprefix(WORKLOAD_ARGS) for name in values if name.startswith(WORKLOAD_ARGS)]
    if not given:
        return []
    workload = find_workload(config.resolved()["workload"], config.path.parent)
    arguments = dict.fromkeys([*config.arguments(), *given])
    return [f"--param: workload: {problem}" for problem in check_workload(workload, list(arguments))]
