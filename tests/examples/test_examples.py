from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from stabletune.config import Config, load_config
from stabletune.records import TrialResult, TrialSpec
from stabletune.trial.worker import run_trial
from stabletune.trial.workloads import diabetes_mlp

FOLDER = Path(__file__).resolve().parents[2] / "examples"
EXAMPLES = sorted(path.parent.name for path in FOLDER.glob("*/config.yaml"))


@pytest.fixture(params=EXAMPLES)
def example(request: pytest.FixtureRequest) -> Path:
    return FOLDER / str(request.param)


def spec_of(config: Config, steps: int) -> TrialSpec:
    return TrialSpec(
        number=0,
        purpose="search",
        seed=config.seed,
        steps=steps,
        full_steps=config.budget.full_steps,
        params=config.settings({}),
        workload=config.workload,
        workload_args=dict(config.workload_args),
        schedule=config.schedule.name,
        metric=config.objective.metric,
        source=config.objective.source,
        target=config.objective.target,
        overhead=None,
        every=steps,
        stops_on_spike=True,
        predicts=False,
    )


def run(folder: Path, *overrides: str, steps: int = 3) -> TrialResult:
    result = run_trial(spec_of(load_config(str(folder / "config.yaml"), overrides=overrides), steps))
    assert result.status == "completed", result.traceback or result.reason
    return result


def test_there_are_the_five_promised_examples() -> None:
    assert EXAMPLES == ["char_lm", "diabetes", "digits_cnn", "modular_division", "your_own_model"]


def test_three_steps_of_the_baseline_run_and_are_measured(example: Path) -> None:
    result = run(example)
    assert result.losses.shape == (3,)
    assert np.isfinite(result.losses).all()
    assert [m.step for m in result.measurements] == [3]
    assert result.measurements[0].sharpness_ratio is not None


def test_the_trial_is_a_small_part_of_the_full_run(example: Path) -> None:
    budget = load_config(str(example / "config.yaml")).budget
    assert budget.trial_steps * 2 <= budget.full_steps


def test_the_readme_names_the_command_that_runs_the_example(example: Path) -> None:
    text = (example / "README.md").read_text(encoding="utf-8")
    assert f"stabletune search examples/{example.name}/config.yaml" in text


def test_an_evaluated_example_has_a_positive_eval_value() -> None:
    result = run(FOLDER / "your_own_model")
    assert result.spec.source == "eval"
    assert result.objective is not None
    assert result.objective > 0


def test_your_own_model_trains_alike_with_build_and_with_its_own_loop() -> None:
    with_build = run(FOLDER / "your_own_model", steps=30)
    with_loop = run(FOLDER / "your_own_model", "workload=own_loop.py:train", steps=30)
    assert np.array_equal(with_build.losses, with_loop.losses)
    assert with_build.objective == with_loop.objective


def test_the_diabetes_example_is_the_built_in_task_written_out() -> None:
    result = run(FOLDER / "diabetes", steps=1)
    training = diabetes_mlp.build(result.spec.seed, torch.device("cpu"), **result.spec.workload_args)
    assert training.loss_fn(training.model, training.batches[0]).item() == pytest.approx(result.losses[0], rel=1e-5)


def test_a_searched_batch_size_reaches_the_workload() -> None:
    spec = spec_of(load_config(str(FOLDER / "your_own_model" / "config.yaml")), steps=3)
    small = dataclasses.replace(spec, workload_args={**spec.workload_args, "batch_size": 8})
    assert not np.array_equal(run_trial(small).losses, run_trial(spec).losses)
