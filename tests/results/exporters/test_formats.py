from __future__ import annotations

import ast
import json
from typing import Any

import pytest
import yaml

from stabletune.errors import ExportError
from stabletune.results.exporters import export, formats
from stabletune.results.recommendation import Recommendation, settings_from
from stabletune.schedules import SCHEDULES
from tests.results.runs import PARAMS

EVIDENCE = {"confirmed_steps": 1000, "confirm_seeds": 5, "spiky_runs": 0}
PROVENANCE = {"stabletune": "0.1.0"}


def recommendation(schedule: str = "constant", **changes: Any) -> Recommendation:
    params = {**PARAMS, "lr": 0.003, "beta2": 0.96, **changes}
    return Recommendation(settings_from(params, schedule), EVIDENCE, PROVENANCE)


def parsed(format_name: str, text: str) -> Any:
    return json.loads(text) if format_name in ("deepspeed", "json") else yaml.safe_load(text)


def test_every_published_format_is_there() -> None:
    published = {"torch", "huggingface", "lightning", "deepspeed", "axolotl", "optax", "json"}
    assert set(formats()) == published


def test_an_unknown_format_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ExportError, match=r"but got 'pytorch'\. Did you mean torch\?"):
        export(recommendation(), "pytorch")


@pytest.mark.parametrize("format_name", formats())
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_format_is_well_formed_for_every_schedule(format_name: str, schedule: str) -> None:
    text = export(recommendation(schedule, warmup_ratio=0.1, max_grad_norm=1.0), format_name)
    assert text.endswith("\n") and "0.003" in text and "0.96" in text
    if format_name in ("torch", "optax"):
        ast.parse(text)
    else:
        assert isinstance(parsed(format_name, text), dict)


@pytest.mark.parametrize("format_name", sorted(set(formats()) - {"json"}))
def test_every_format_says_what_was_proven(format_name: str) -> None:
    assert "0 of 5 fresh runs of 1000 steps" in export(recommendation(), format_name)


@pytest.mark.parametrize("format_name", formats())
@pytest.mark.parametrize(
    "setting",
    [
        {"update_clip": 1.0},
        {"second_moment_clip": 5000.0},
        {"second_moment_reset": 7.5},
        {"beta2_exponent": 0.85},
        {"amsgrad": True},
        {"max_grad_norm": 2.5},
    ],
)
def test_no_format_drops_a_setting_in_silence(format_name: str, setting: dict[str, Any]) -> None:
    text = export(recommendation(**setting), format_name)
    (value,) = setting.values()
    plain = export(recommendation(), format_name)
    added = "\n".join(line for line in text.splitlines() if line not in plain.splitlines())
    assert str(value).lower() in added.lower()


@pytest.mark.parametrize("format_name", sorted(set(formats()) - {"json"}))
def test_searched_workload_arguments_are_mentioned(format_name: str) -> None:
    settings = settings_from(PARAMS, "constant", workload_args={"batch_size": 48})
    assert "batch_size=48" in export(Recommendation(settings, EVIDENCE), format_name)


def test_a_shaped_schedule_without_a_horizon_is_refused() -> None:
    unproven = Recommendation(settings_from(PARAMS, "cosine"))
    with pytest.raises(ExportError, match=r"evidence\.confirmed_steps: must be given"):
        export(unproven, "torch")


def test_settings_without_evidence_export_and_say_so() -> None:
    assert "without a proof on record" in export(Recommendation(settings_from(PARAMS, "constant")), "torch")


def test_huggingface_never_leaves_clipping_to_the_trainers_default() -> None:
    assert parsed("huggingface", export(recommendation(), "huggingface"))["max_grad_norm"] == 0.0


def test_huggingface_uses_the_names_of_training_arguments() -> None:
    keys = parsed("huggingface", export(recommendation("cosine", warmup_ratio=0.1, max_grad_norm=1.0), "huggingface"))
    assert keys == {
        "optim": "adamw_torch",
        "learning_rate": 0.003,
        "adam_beta1": 0.9,
        "adam_beta2": 0.96,
        "adam_epsilon": 1e-8,
        "weight_decay": 0.01,
        "max_grad_norm": 1.0,
        "warmup_steps": 100,
        "lr_scheduler_type": "cosine",
        "max_steps": 1000,
    }


def test_axolotl_without_clipping_sets_it_out_of_reach() -> None:
    assert parsed("axolotl", export(recommendation(), "axolotl"))["max_grad_norm"] == 1e9


def test_deepspeed_says_linear_warmup_and_its_own_key_names() -> None:
    content = parsed("deepspeed", export(recommendation("linear", warmup_ratio=0.1, max_grad_norm=1.0), "deepspeed"))
    assert content["optimizer"]["params"] == {"lr": 0.003, "betas": [0.9, 0.96], "eps": 1e-8, "weight_decay": 0.01}
    assert content["gradient_clipping"] == 1.0
    assert content["scheduler"]["type"] == "WarmupDecayLR"
    assert content["scheduler"]["params"]["warmup_type"] == "linear"
    assert content["scheduler"]["params"]["total_num_steps"] == 1000


def test_lightning_names_the_instrumented_optimizer_only_when_needed() -> None:
    plain = parsed("lightning", export(recommendation(max_grad_norm=1.0), "lightning"))
    assert plain["optimizer"]["class_path"] == "torch.optim.AdamW"
    assert plain["trainer"] == {"gradient_clip_val": 1.0, "gradient_clip_algorithm": "norm", "max_steps": 1000}
    clipped = parsed("lightning", export(recommendation(update_clip=1.0), "lightning"))
    assert clipped["optimizer"]["class_path"] == "stabletune.InstrumentedAdamW"
    assert clipped["optimizer"]["init_args"]["update_clip"] == 1.0


def test_json_is_the_content_of_recommended_yaml() -> None:
    assert parsed("json", export(recommendation(), "json")) == json.loads(json.dumps(recommendation().to_dict()))
