from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pydantic
import pytest
import yaml

from stabletune.config import load_config

Writer = Callable[..., Path]

EVERYTHING = """\
workload_args: {width: 64, sizes: [1, 2]}
seed: 3
baseline: {lr: 1, beta2: 0.99, workload_args.depth: 2}
budget: {trials: 7, trial_steps: 10, full_steps: 20, confirm_seeds: 2, wall_minutes: 1}
objective: {metric: steps_to_target, source: train, target: 1e-3}
schedule: {name: wsd, warmup_ratio: 0.05}
signals: {every: 5}
sampler: gp
resources: {cpus_per_trial: 2, gpus_per_trial: 1, max_concurrent: 3, address: auto}
output: runs/elsewhere
"""


def test_settings_are_defaults_then_schedule_then_baseline_then_params(write: Writer) -> None:
    config = load_config(write("baseline: {lr: 1.0e-2, beta2: 0.95}\nschedule: {warmup_ratio: 0.1}\n"))
    assert config.settings() == {
        "lr": 1e-2,
        "beta1": 0.9,
        "beta2": 0.95,
        "eps": 1e-8,
        "weight_decay": 1e-2,
        "max_grad_norm": None,
        "update_clip": None,
        "second_moment_clip": None,
        "second_moment_reset": None,
        "beta2_exponent": None,
        "amsgrad": False,
        "warmup_ratio": 0.1,
    }
    settings = config.settings({"lr": 0.5, "warmup_ratio": 0.2, "workload_args.width": 3})
    assert (settings["lr"], settings["beta2"], settings["warmup_ratio"]) == (0.5, 0.95, 0.2)
    assert "workload_args.width" not in settings


def test_a_warm_up_in_the_baseline_wins_over_the_schedule(write: Writer) -> None:
    config = load_config(write("baseline: {warmup_ratio: 0.3}\nschedule: {warmup_ratio: 0.1}\n"))
    assert config.settings()["warmup_ratio"] == 0.3


def test_arguments_are_workload_args_then_baseline_then_params(write: Writer) -> None:
    config = load_config(write(EVERYTHING))
    assert config.arguments() == {"width": 64, "sizes": [1, 2], "depth": 2}
    assert config.arguments({"lr": 0.1, "workload_args.width": 8, "workload_args.depth": 9}) == {
        "width": 8,
        "sizes": [1, 2],
        "depth": 9,
    }


def test_arguments_can_be_changed_without_changing_the_config(write: Writer) -> None:
    config = load_config(write(EVERYTHING))
    config.arguments()["sizes"].append(3)
    assert config.arguments()["sizes"] == [1, 2]


def test_a_config_cannot_be_changed(write: Writer) -> None:
    config = load_config(write())
    with pytest.raises(pydantic.ValidationError):
        config.seed = 4  # type: ignore[misc]
    with pytest.raises(pydantic.ValidationError):
        config.budget.trials = 4  # type: ignore[misc]


@pytest.mark.parametrize("text", ["", EVERYTHING])
def test_a_resolved_config_reads_back_as_itself_from_another_folder(write: Writer, tmp_path: Path, text: str) -> None:
    config = load_config(write(text))
    folder = tmp_path / "runs" / "x"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config.resolved()))
    again = load_config(folder / "config.yaml")
    assert again.resolved() == config.resolved()
    assert again.sha256() == config.sha256()
    assert again.difference(config.resolved()) == []


def test_a_resolved_config_is_complete_and_holds_an_absolute_workload_path(write: Writer, tmp_path: Path) -> None:
    resolved = load_config(write()).resolved()
    assert resolved["workload"] == f"{tmp_path / 'workload.py'}:build"
    assert len(resolved["workload_sha256"]) == 64
    assert resolved["search_space"]["lr"] == {"low": 1e-4, "high": 1e-1, "scale": "log"}
    assert resolved["version"] == 1
    assert resolved["output"] == "runs/some-study"


def test_budget_and_output_do_not_count_as_a_difference(write: Writer) -> None:
    config = load_config(write())
    other = load_config(config.path, overrides=["budget.trials=99", "budget.wall_minutes=1"], output="runs/other")
    assert config.difference(other.resolved()) == []
    assert config.sha256() == other.sha256()


@pytest.mark.parametrize(
    ("override", "keys"),
    [
        ("seed=1", ["seed"]),
        ("baseline.lr=0.5", ["baseline", "baseline.lr"]),
        ("workload_args={width: 3}", ["workload_args", "workload_args.width"]),
        ("schedule={name: cosine, warmup_ratio: 0.1}", ["schedule.name", "schedule.warmup_ratio"]),
        ("signals={every: 2}", ["signals.every", "signals.overhead"]),
        ("signals.shadow_beta2=[0.9]", ["signals.shadow_beta2"]),
        (
            "search_space=adam_lr_betas",
            ["search_space.beta1.high", "search_space.beta1.low", "search_space.beta1.scale"],
        ),
        ("storage=sqlite:///x.db", ["storage"]),
    ],
)
def test_any_other_change_is_named_by_its_key_and_changes_the_hash(
    write: Writer, override: str, keys: list[str]
) -> None:
    config = load_config(write())
    other = load_config(config.path, overrides=[override])
    assert set(keys) <= set(config.difference(other.resolved()))
    assert config.sha256() != other.sha256()


def test_a_changed_workload_source_is_a_difference(write: Writer) -> None:
    config = load_config(write())
    other = load_config(write(workload="def build(seed, device): return 1\n"))
    assert config.difference(other.resolved()) == ["workload_sha256"]


def test_a_password_written_out_opens_the_database_and_is_kept_nowhere(write: Writer) -> None:
    config = load_config(write("storage: postgresql://me:sesame%2Fpoppy@host/db?sslpassword=my-key\n"))
    assert config.storage_url == "postgresql://me:sesame%2Fpoppy@host/db?sslpassword=my-key"
    assert config.resolved()["storage"] == "postgresql://me:***@host/db?sslpassword=***"
    assert not [secret for secret in ("sesame", "poppy", "my-key") if secret in repr(config) + repr(config.resolved())]
    changed = load_config(config.path, overrides=["storage=postgresql://me:changed@host/db?sslpassword=my-key"])
    assert config.difference(changed.resolved()) == []
    assert changed.sha256() == config.sha256()


def test_a_password_that_was_left_out_is_left_to_the_database_s_client(write: Writer) -> None:
    assert load_config(write("storage: postgresql://me:***@host/db\n")).storage_url == "postgresql://me@host/db"


def test_a_config_survives_the_process_border(write: Writer) -> None:
    config = load_config(write(EVERYTHING))
    again = pickle.loads(pickle.dumps(config))
    assert again.resolved() == config.resolved()
    assert again.path == config.path


def test_sharpness_reads_back_and_changes_the_hash_and_its_absence_leaves_no_key(write: Writer) -> None:
    config = load_config(write())
    assert config.sha256() == load_config(config.path, overrides=["signals.sharpness=false"]).sha256()
    assert config.resolved()["signals"] == {"overhead": 0.15}
    other = load_config(config.path, overrides=["signals.sharpness=true"])
    resolved = other.resolved()
    assert resolved["signals"] == {"overhead": 0.15, "sharpness": True}
    assert config.difference(resolved) == ["signals.sharpness"]
    assert other.difference(yaml.safe_load(yaml.safe_dump(resolved))) == []


def test_shadows_read_back_and_their_absence_leaves_no_key_in_a_resolved_config(write: Writer) -> None:
    config = load_config(write())
    assert config.resolved()["signals"] == {"overhead": 0.15}
    other = load_config(config.path, overrides=["signals.shadow_beta2=[0.9, 0.99]", "signals.shadow_exact=true"])
    resolved = other.resolved()
    assert resolved["signals"] == {"overhead": 0.15, "shadow_beta2": [0.9, 0.99], "shadow_exact": True}
    assert other.difference(yaml.safe_load(yaml.safe_dump(resolved))) == []
