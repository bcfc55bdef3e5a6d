from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from stabletune.errors import OutputFolderError
from stabletune.hyperparameters import MITIGATIONS
from stabletune.results.recommendation import Recommendation, settings_from
from tests.results.runs import PARAMS


def recommendation(**changes: Any) -> Recommendation:
    return Recommendation(
        settings_from({**PARAMS, **changes}, "cosine"), {"confirm_seeds": 5, "spiky_runs": 0}, {"seed": 0}
    )


def test_a_saved_recommendation_loads_equal(tmp_path: Path) -> None:
    recommendation(lr=3.1e-3, update_clip=1.0).save(tmp_path / "r.yaml")
    assert Recommendation.load(tmp_path / "r.yaml") == recommendation(lr=3.1e-3, update_clip=1.0)


def test_the_file_has_the_published_layout(tmp_path: Path) -> None:
    recommendation(warmup_ratio=0.1).save(tmp_path / "r.yaml")
    content = yaml.safe_load((tmp_path / "r.yaml").read_text())
    assert list(content) == ["version", "settings", "evidence", "provenance"]
    assert list(content["settings"]) == [
        *("optimizer", "lr", "beta1", "beta2", "eps", "weight_decay", "max_grad_norm", "update_clip"),
        *("second_moment_clip", "second_moment_reset", "beta2_exponent", "amsgrad", "schedule"),
    ]
    assert content["settings"]["eps"] == 1e-8
    assert content["settings"]["schedule"] == {"name": "cosine", "warmup_ratio": 0.1}


def test_numpy_numbers_are_saved_as_plain_ones(tmp_path: Path) -> None:
    recommendation(lr=np.float64(0.25)).save(tmp_path / "r.yaml")
    assert Recommendation.load(tmp_path / "r.yaml").settings["lr"] == 0.25


def test_searched_workload_arguments_are_kept_and_absent_otherwise() -> None:
    assert settings_from(PARAMS, "constant", workload_args={"batch_size": 32})["workload_args"] == {"batch_size": 32}
    assert "workload_args" not in settings_from(PARAMS, "constant")


def test_plain_settings_build_torchs_own_adamw() -> None:
    optimizer = recommendation(lr=0.01, beta2=0.96).build_optimizer([torch.nn.Parameter(torch.ones(2))])
    assert type(optimizer) is torch.optim.AdamW
    assert optimizer.defaults["betas"] == (0.9, 0.96) and optimizer.defaults["lr"] == 0.01


MITIGATED = {
    "max_grad_norm": 1.0,
    "update_clip": 1.0,
    "second_moment_clip": 5000.0,
    "second_moment_reset": 5.0,
    "beta2_exponent": 0.8,
}


@pytest.mark.parametrize("name", MITIGATIONS)
def test_a_mitigation_builds_the_instrumented_optimizer_with_it(name: str) -> None:
    from stabletune.optim.instrumented_adamw import InstrumentedAdamW

    optimizer = recommendation(**{name: MITIGATED[name]}).build_optimizer([torch.nn.Parameter(torch.ones(2))])
    assert isinstance(optimizer, InstrumentedAdamW)
    assert optimizer.param_groups[0][name] == MITIGATED[name]


@pytest.mark.parametrize("name", MITIGATIONS)
def test_a_file_from_before_a_mitigation_was_known_loads_with_it_off(tmp_path: Path, name: str) -> None:
    content = recommendation().to_dict()
    del content["settings"][name]
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(content))
    optimizer = Recommendation.load(tmp_path / "r.yaml").build_optimizer([torch.nn.Parameter(torch.ones(2))])
    assert type(optimizer) is torch.optim.AdamW


def test_a_number_without_a_dot_loads_as_a_number(tmp_path: Path) -> None:
    recommendation().save(tmp_path / "r.yaml")
    text = (tmp_path / "r.yaml").read_text().replace("1.0e-08", "1e-8")
    (tmp_path / "r.yaml").write_text(text)
    assert Recommendation.load(tmp_path / "r.yaml").settings["eps"] == 1e-8


def test_all_mistakes_of_a_file_are_shown_together(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    settings = {**settings_from(PARAMS, "constant"), "lr": -1, "beta2": 1.0, "typo": 3, "amsgrad": "yes please"}
    settings["schedule"] = {"name": "zigzag", "warmup_ratio": 2}
    path.write_text(yaml.safe_dump({"version": 2, "settings": settings, "evidence": []}))
    with pytest.raises(OutputFolderError) as caught:
        Recommendation.load(path)
    lines = str(caught.value).splitlines()
    assert len(lines) == 8 and all(line.startswith(f"{path}: ") for line in lines)
    for word in ("version", "evidence", "0 < lr", "beta2 < 1", "typo", "amsgrad", "zigzag", "warmup_ratio"):
        assert any(word in line for line in lines), word


@pytest.mark.parametrize("content", ["", "- 1\n", "a: [", "version: 1\n", "version: 1\nsettings: {}\n"])
def test_a_file_that_is_no_recommendation_is_a_clear_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "r.yaml").write_text(content)
    with pytest.raises(OutputFolderError, match=r"r\.yaml: .*but got"):
        Recommendation.load(tmp_path / "r.yaml")


def test_an_absent_file_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(OutputFolderError, match="must be a file, but got nothing there"):
        Recommendation.load(tmp_path / "r.yaml")


@pytest.mark.parametrize("mitigation", [{}, {"update_clip": 1.0}])
def test_groups_with_an_lr_scale_are_built_as_a_trial_builds_them(mitigation: dict[str, Any]) -> None:
    groups = [
        {"params": [torch.nn.Parameter(torch.ones(1))], "lr_scale": 0.1},
        {"params": [torch.nn.Parameter(torch.ones(1))], "weight_decay": 0.0},
    ]
    optimizer = recommendation(lr=2e-3, **mitigation).build_optimizer(groups)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([2e-4, 2e-3])
    assert [group["weight_decay"] for group in optimizer.param_groups] == [PARAMS["weight_decay"], 0.0]


@pytest.mark.parametrize("steps", [-5, 0, 1.5, True, "10", float("nan"), 10**400])
def test_a_length_that_is_none_is_refused(steps: Any) -> None:
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(1))])
    with pytest.raises(ValueError, match="total_steps: must be a whole number of at least 1, but got"):
        recommendation().build_schedule(optimizer, total_steps=steps)


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ("settings", "optimizer", "SGD"),
        ("settings", "workload_args", "x"),
        ("settings", "schedule", {"name": "cosine", "warmup_ratio": 0.0, "total_steps": -5}),
        *(("evidence", "confirmed_steps", value) for value in ("abc", [1], math.nan, math.inf, -5, 0)),
        ("evidence", "objective", "abc"),
        ("evidence", "objective", {"ratio": "x"}),
        ("evidence", "spiky_run_rate_upper_95", [1, 2]),
        ("evidence", "predicted_clean_rate", {}),
        ("provenance", "restated", 5),
    ],
)
def test_what_was_edited_into_nonsense_is_refused_by_its_key(
    tmp_path: Path, section: str, name: str, value: Any
) -> None:
    content = recommendation().to_dict()
    content[section][name] = value
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(OutputFolderError, match=rf"{section}\.{name}"):
        Recommendation.load(tmp_path / "r.yaml")


def test_a_version_that_is_true_is_no_version(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({**recommendation().to_dict(), "version": True}))
    with pytest.raises(OutputFolderError, match="version: must be"):
        Recommendation.load(tmp_path / "r.yaml")
