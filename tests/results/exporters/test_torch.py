from __future__ import annotations

from typing import Any

import pytest
import torch

from stabletune.results.exporters.torch import export
from stabletune.results.recommendation import Recommendation, settings_from
from stabletune.schedules import SCHEDULES, lr_factor
from tests.results.runs import PARAMS


def module_from(schedule: str = "constant", **changes: Any) -> dict[str, Any]:
    settings = settings_from({**PARAMS, "lr": 0.5, **changes}, schedule)
    text = export(Recommendation(settings, {"confirmed_steps": 50}))
    names: dict[str, Any] = {}
    exec(text, names)
    return names


def parameter() -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.ones(3))


def test_the_code_builds_torchs_adamw_with_the_settings() -> None:
    optimizer = module_from(beta2=0.96, eps=1e-6, weight_decay=0.0)["build_optimizer"]([parameter()])
    assert type(optimizer) is torch.optim.AdamW
    group = optimizer.param_groups[0]
    assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == (0.5, (0.9, 0.96), 1e-6, 0.0)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("warmup_ratio", [0.0, 0.1])
def test_the_schedule_is_the_one_that_was_proven(schedule: str, warmup_ratio: float) -> None:
    names = module_from(schedule, warmup_ratio=warmup_ratio)
    if schedule == "constant" and not warmup_ratio:
        assert "build_schedule" not in names
        return
    optimizer = names["build_optimizer"]([parameter()])
    scheduler = names["build_schedule"](optimizer)
    rates = []
    for _ in range(55):
        rates.append(optimizer.param_groups[0]["lr"] / 0.5)
        optimizer.step()
        scheduler.step()
    warmup_steps = round(50 * warmup_ratio)
    expected = [lr_factor(schedule, step, warmup_steps=warmup_steps, full_steps=50) for step in range(55)]
    assert rates == pytest.approx(expected)


def test_clipping_is_torchs_own_and_absent_when_off() -> None:
    assert "clip_gradients" not in module_from()
    weights = parameter()
    weights.grad = torch.full((3,), 10.0)
    module_from(max_grad_norm=1.0)["clip_gradients"]([weights])
    assert float(weights.grad.norm()) == pytest.approx(1.0, rel=1e-4)


def test_a_mitigation_torch_lacks_uses_the_instrumented_optimizer() -> None:
    settings = settings_from({**PARAMS, "update_clip": 1.0}, "constant")
    text = export(Recommendation(settings))
    assert "from stabletune import InstrumentedAdamW" in text
    assert "torch's AdamW has no word for update_clip" in text
