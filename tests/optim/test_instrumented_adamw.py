from __future__ import annotations

import copy
import io
import itertools
from typing import Any

import pytest
import torch

from stabletune.hyperparameters import MITIGATIONS
from stabletune.optim import InstrumentedAdamW
from stabletune.optim.clipped_adamw import BY_TENSOR
from tests.optim.nets import losses_of, net, parameters_equal, train

FLAGS = [{}, {"foreach": True}, {"foreach": False}, {"fused": True}]
SETTINGS: list[dict[str, Any]] = [{}, {"amsgrad": True}, {"weight_decay": 0.3}, {"maximize": True, "lr": 1e-4}]


@pytest.mark.parametrize(("flags", "settings"), list(itertools.product(FLAGS, SETTINGS)))
def test_with_nothing_on_it_is_torch_adamw_bit_for_bit(flags: dict[str, Any], settings: dict[str, Any]) -> None:
    kwargs = {"lr": 1e-2, **settings, **flags}
    ours, theirs = net(), net()
    train(ours, InstrumentedAdamW(ours.parameters(), **kwargs), steps=100)
    train(theirs, torch.optim.AdamW(theirs.parameters(), **kwargs), steps=100)
    assert parameters_equal(ours, theirs)


def test_parameter_groups_with_their_own_settings_are_torch_bit_for_bit() -> None:
    ours, theirs = net(), net()

    def groups(model: torch.nn.Module) -> list[dict[str, Any]]:
        first, *rest = model.parameters()
        return [{"params": [first], "lr": 3e-3, "weight_decay": 0.0}, {"params": rest, "betas": (0.8, 0.95)}]

    train(ours, InstrumentedAdamW(groups(ours), lr=1e-2), steps=60)
    train(theirs, torch.optim.AdamW(groups(theirs), lr=1e-2), steps=60)
    assert parameters_equal(ours, theirs)


@pytest.mark.parametrize("flags", FLAGS)
def test_max_grad_norm_is_clip_grad_norm_before_the_step_bit_for_bit(flags: dict[str, Any]) -> None:
    ours, theirs = net(), net()
    train(ours, InstrumentedAdamW(ours.parameters(), lr=1e-2, max_grad_norm=0.1, **flags), steps=60)
    train(theirs, torch.optim.AdamW(theirs.parameters(), lr=1e-2, **flags), steps=60, clip=0.1)
    assert parameters_equal(ours, theirs)


@pytest.mark.parametrize("limits", [{"update_clip": 1e9}, {"second_moment_clip": 1e30}, {"second_moment_reset": 1e30}])
@pytest.mark.parametrize("settings", [{}, {"amsgrad": True}, {"weight_decay": 0.3}])
def test_a_limit_that_never_bites_is_foreach_adamw_bit_for_bit(
    limits: dict[str, Any], settings: dict[str, Any]
) -> None:
    ours, theirs = net(), net()
    train(ours, InstrumentedAdamW(ours.parameters(), lr=1e-2, **limits, **settings), steps=60)
    train(theirs, torch.optim.AdamW(theirs.parameters(), lr=1e-2, foreach=True, **settings), steps=60)
    assert parameters_equal(ours, theirs)


def test_the_norm_and_the_clip_factor_of_the_last_step_can_be_read() -> None:
    p, unused = torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(1))
    optimizer = InstrumentedAdamW([p, unused], max_grad_norm=1.0)
    p.grad = torch.tensor([3.0, 4.0])
    optimizer.step()
    assert optimizer.grad_norm == pytest.approx(5.0)
    assert optimizer.clip_factor(p) == pytest.approx(0.2, rel=1e-6)
    p.grad = torch.tensor([0.3, 0.4])
    optimizer.step()
    assert optimizer.clip_factor(p) == 1.0
    assert InstrumentedAdamW([p]).grad_norm is None


def test_hooks_run_once_even_when_torch_has_already_wrapped_its_own_adamw() -> None:
    model = net()
    torch.optim.AdamW(model.parameters())
    torch.optim.Adam(model.parameters())
    optimizer = InstrumentedAdamW(model.parameters())
    calls: list[int] = []
    optimizer.register_step_pre_hook(lambda *_: calls.append(1))
    train(model, optimizer, steps=3)
    assert len(calls) == 3


def test_a_closure_recomputes_gradients_before_they_are_clipped() -> None:
    ours, theirs = net(), net()
    for model, optimizer in (
        (ours, InstrumentedAdamW(ours.parameters(), max_grad_norm=0.01)),
        (theirs, InstrumentedAdamW(theirs.parameters(), max_grad_norm=0.01)),
    ):

        def closure(model: torch.nn.Module = model, optimizer: torch.optim.Optimizer = optimizer) -> torch.Tensor:
            optimizer.zero_grad()
            loss = losses_of(model)
            loss.backward()
            return loss

        for _ in range(5):
            if model is ours:
                assert optimizer.step(closure).item() > 0
            else:
                closure()
                optimizer.step()
    assert parameters_equal(ours, theirs)


RESUMED = [
    {},
    {"max_grad_norm": 0.5, "update_clip": 0.5, "second_moment_clip": 50.0},
    {"beta2_exponent": 0.8, "second_moment_reset": 2.0},
]


@pytest.mark.parametrize("limits", RESUMED)
@pytest.mark.parametrize("amsgrad", [False, True])
def test_training_resumes_from_a_state_dict_as_if_never_interrupted(limits: dict[str, Any], amsgrad: bool) -> None:
    straight, resumed = net(), net()
    settings: dict[str, Any] = {"lr": 1e-2, "amsgrad": amsgrad, **limits}
    train(straight, InstrumentedAdamW(straight.parameters(), **settings), steps=40)
    first = InstrumentedAdamW(resumed.parameters(), **settings)
    train(resumed, first, steps=20)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = InstrumentedAdamW(resumed.parameters())
    second.load_state_dict(torch.load(file))
    train(resumed, second, steps=20)
    assert parameters_equal(straight, resumed)


@pytest.mark.parametrize("source", [torch.optim.Adam, torch.optim.AdamW])
def test_torchs_own_state_dicts_load_with_decoupled_decay_and_the_limits_kept(source: Any) -> None:
    model = net()
    optimizer = source(model.parameters(), lr=3e-3, weight_decay=0.1)
    train(model, optimizer, steps=5)
    twin = copy.deepcopy(model)
    reference = torch.optim.AdamW(twin.parameters())
    reference.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    ours = InstrumentedAdamW(model.parameters(), update_clip=1e9, max_grad_norm=1e9)
    ours.load_state_dict(optimizer.state_dict())
    assert ours.param_groups[0]["decoupled_weight_decay"] is True
    assert (ours.param_groups[0]["update_clip"], ours.param_groups[0]["max_grad_norm"]) == (1e9, 1e9)
    train(model, ours, steps=10)
    train(twin, reference, steps=10)
    assert parameters_equal(model, twin)


def test_state_dicts_of_old_checkpoints_without_later_keys_load() -> None:
    model = net()
    optimizer = torch.optim.Adam(model.parameters())
    train(model, optimizer, steps=2)
    saved = optimizer.state_dict()
    for group in saved["param_groups"]:
        for key in ("decoupled_weight_decay", "fused", "foreach", "capturable", "differentiable", "maximize"):
            group.pop(key, None)
    twin = copy.deepcopy(model)
    reference = torch.optim.AdamW(twin.parameters())
    reference.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    ours = InstrumentedAdamW(model.parameters())
    ours.load_state_dict(saved)
    train(model, ours, steps=2)
    train(twin, reference, steps=2)
    assert parameters_equal(model, twin)


def test_torchs_adamw_loads_our_state_dict() -> None:
    model = net()
    ours = InstrumentedAdamW(model.parameters(), update_clip=1.0)
    train(model, ours, steps=2)
    twin = copy.deepcopy(model)
    theirs, free = torch.optim.AdamW(model.parameters()), InstrumentedAdamW(twin.parameters())
    theirs.load_state_dict(ours.state_dict())
    free.load_state_dict(copy.deepcopy(ours.state_dict()))
    for group in free.param_groups:
        group["update_clip"] = None
    train(model, theirs, steps=2)
    train(twin, free, steps=2)
    assert parameters_equal(model, twin)


def test_copies_and_pickles_keep_the_limits() -> None:
    model = net()
    optimizer = InstrumentedAdamW(model.parameters(), update_clip=0.5)
    train(model, optimizer, steps=2)
    twin_model, twin = copy.deepcopy((model, optimizer))
    train(model, optimizer, steps=5)
    train(twin_model, twin, steps=5)
    assert parameters_equal(model, twin_model)


def test_learning_rate_schedulers_drive_it() -> None:
    ours, theirs = net(), net()
    for model, optimizer in (
        (ours, InstrumentedAdamW(ours.parameters(), lr=1e-2, update_clip=1e9)),
        (theirs, torch.optim.AdamW(theirs.parameters(), lr=1e-2, foreach=True)),
    ):
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)
        for _ in range(20):
            train(model, optimizer, steps=1)
            scheduler.step()
    assert parameters_equal(ours, theirs)


@pytest.mark.parametrize("name", MITIGATIONS)
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf"), True, "1"])
def test_limits_that_are_no_positive_number_are_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"InstrumentedAdamW: {name} must be .* but got"):
        InstrumentedAdamW(net().parameters(), **{name: value})


@pytest.mark.parametrize("flag", ["fused", "capturable", "differentiable"])
@pytest.mark.parametrize(
    "setting", [{name: 0.5} for name in BY_TENSOR if name != "second_moment_reset"] + [{"second_moment_reset": 9.0}]
)
def test_flags_that_a_step_by_tensor_cannot_honour_are_refused(flag: str, setting: dict[str, Any]) -> None:
    (name,) = setting
    with pytest.raises(ValueError, match=f"exclude {flag}, but got {flag}=True beside {name}="):
        InstrumentedAdamW(net().parameters(), **setting, **{flag: True})


@pytest.mark.parametrize("t", [1, 20])
def test_a_schedule_switched_on_or_off_later_leaves_v_hat_where_it_is(t: int) -> None:
    p = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    optimizer = InstrumentedAdamW([p], betas=(0.9, 0.99))
    for step in range(1, 2 * t + 3):
        optimizer.param_groups[0]["beta2_exponent"] = 0.8 if t < step <= 2 * t else None
        p.grad = torch.full_like(p, 2.0)
        optimizer.step()
        v_hat = optimizer.state[p]["exp_avg_sq"] / (1 - 0.99**step)
        torch.testing.assert_close(v_hat, torch.full_like(v_hat, 4.0))


def test_a_pickle_from_before_a_mitigation_was_known_loads_with_it_off() -> None:
    model = net()
    optimizer = InstrumentedAdamW(model.parameters(), update_clip=0.5)
    train(model, optimizer, steps=2)
    state = copy.deepcopy(optimizer.__getstate__())
    for mapping in (state["defaults"], *state["param_groups"]):
        del mapping["beta2_exponent"]
    restored = InstrumentedAdamW.__new__(InstrumentedAdamW)
    restored.__setstate__(state)
    assert restored.param_groups[0]["beta2_exponent"] is None and restored.param_groups[0]["update_clip"] == 0.5
    restored.step()


def test_one_group_may_not_have_its_own_global_norm() -> None:
    with pytest.raises(ValueError, match="over all groups together"):
        InstrumentedAdamW([{"params": list(net().parameters()), "max_grad_norm": 1.0}])


def test_a_grad_scaler_unscales_before_the_norm_is_taken() -> None:
    optimizer = InstrumentedAdamW(net().parameters(), fused=True, max_grad_norm=1.0)
    assert not optimizer._step_supports_amp_scaling
