from __future__ import annotations

import inspect
import math

import pytest
import torch

from stabletune.hyperparameters import HYPERPARAMETERS, MITIGATIONS, default_settings


def test_defaults_are_those_of_torch() -> None:
    parameters = inspect.signature(torch.optim.AdamW).parameters
    settings = default_settings()
    assert (settings["beta1"], settings["beta2"]) == parameters["betas"].default
    for name in ("lr", "eps", "weight_decay", "amsgrad"):
        assert settings[name] == parameters[name].default


def test_mitigations_and_warm_up_are_off_by_default() -> None:
    settings = default_settings()
    assert {settings[name] for name in MITIGATIONS} == {None} and settings["amsgrad"] is False
    assert settings["warmup_ratio"] == 0.0


def test_every_default_keeps_its_own_rule() -> None:
    assert all(known.accepts(known.default) for known in HYPERPARAMETERS.values())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr", 0),
        ("lr", -1e-3),
        ("lr", math.nan),
        ("lr", math.inf),
        ("lr", None),
        ("lr", True),
        ("lr", "0.1"),
        ("lr", 2**2000),
        ("beta1", 1.0),
        ("beta1", -0.1),
        ("beta2", 1),
        ("eps", -1e-8),
        ("weight_decay", -1),
        ("max_grad_norm", 0),
        ("update_clip", -1.0),
        ("second_moment_clip", 0.0),
        ("second_moment_reset", 1.0),
        ("beta2_exponent", 0.0),
        ("beta2_exponent", 1.0),
        ("amsgrad", 1),
        ("amsgrad", None),
        ("warmup_ratio", 1.0),
    ],
)
def test_values_outside_the_rule_are_refused(name: str, value: object) -> None:
    assert not HYPERPARAMETERS[name].accepts(value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("beta1", 0), ("beta2", 0.9999), ("eps", 0), ("weight_decay", 0.0), ("max_grad_norm", None), ("amsgrad", True)],
)
def test_values_on_the_border_that_torch_takes_are_accepted(name: str, value: object) -> None:
    assert HYPERPARAMETERS[name].accepts(value)


def test_rules_read_as_sentences() -> None:
    assert HYPERPARAMETERS["beta2"].rule == "0 <= beta2 < 1 must hold"
    assert HYPERPARAMETERS["lr"].rule == "0 < lr must hold"
    assert HYPERPARAMETERS["update_clip"].rule == "0 < update_clip must hold, or null to switch it off"
    assert HYPERPARAMETERS["second_moment_reset"].rule == "1 < second_moment_reset must hold, or null to switch it off"
    assert HYPERPARAMETERS["amsgrad"].rule == "must be true or false"
