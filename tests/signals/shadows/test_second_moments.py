from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stabletune.errors import MeasurementError
from stabletune.optim import InstrumentedAdamW
from stabletune.signals.optimizer_state.adaptive_tensor import AdaptiveTensor
from stabletune.signals.optimizer_state.reading import read_tensors
from stabletune.signals.shadows.second_moments import ShadowSecondMoments
from tests.reference.twin_optimizer import TwinOptimizer
from tests.signals.problems import tanh_regression, train

OTHERS = (0.5, 0.9, 0.99)


def run_with_twins(
    optimizer: torch.optim.Optimizer, make: Callable[..., Any], closure: Callable[[], Tensor], steps: int = 12
) -> tuple[ShadowSecondMoments, dict[float, TwinOptimizer]]:
    shadows = ShadowSecondMoments(optimizer, OTHERS)
    twins = {
        beta2: TwinOptimizer(optimizer, lambda groups, b=beta2: make(groups, lr=0.01, betas=(0.9, b)))
        for beta2 in OTHERS
    }
    for _ in range(steps):
        optimizer.zero_grad()
        closure().backward()
        for twin in twins.values():
            twin.step_before()
        optimizer.step()
    return shadows, twins


def assert_same_tensors(
    shadows: ShadowSecondMoments, twins: dict[float, TwinOptimizer], tensors: list[AdaptiveTensor]
) -> None:
    for beta2, twin in twins.items():
        of_twin = {id(t.param): t for t in read_tensors(twin.optimizer)}
        for tensor in shadows.view(beta2, tensors):
            position = next(i for i, p in enumerate(twin.params) if p is tensor.param)
            expected = of_twin[id(twin.copies[position])]
            torch.testing.assert_close(tensor.v_hat, expected.v_hat, rtol=1e-5, atol=0.0)
            assert (tensor.beta2, tensor.entry_share) == (expected.beta2, expected.entry_share)
            assert (tensor.correction, tensor.n_steps) == (expected.correction, expected.n_steps)
            assert tensor.clip_factor == pytest.approx(expected.clip_factor, rel=1e-5)
            assert tensor.shrinkage == pytest.approx(expected.shrinkage, rel=1e-5)


VARIANTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "AdamW": (torch.optim.AdamW, {}),
    "coupled decay": (torch.optim.Adam, {"weight_decay": 0.3}),
    "coupled decay, climbing": (torch.optim.Adam, {"weight_decay": 0.3, "maximize": True}),
    "amsgrad": (torch.optim.AdamW, {"amsgrad": True}),
    "fused": (torch.optim.AdamW, {"fused": True}),
    "foreach": (torch.optim.AdamW, {"foreach": True}),
    "max_grad_norm": (InstrumentedAdamW, {"max_grad_norm": 0.1}),
    "both clips": (InstrumentedAdamW, {"max_grad_norm": 0.1, "update_clip": 0.3}),
    "update_clip": (InstrumentedAdamW, {"update_clip": 0.3}),
}


@pytest.mark.parametrize("n_before", [0, 7])
@pytest.mark.parametrize("name", VARIANTS)
def test_moments_are_those_of_an_optimizer_with_that_beta2_fed_the_same(name: str, n_before: int) -> None:
    kind, settings = VARIANTS[name]
    model, closure = tanh_regression()
    optimizer = kind(model.parameters(), lr=0.01, **settings)
    train(optimizer, closure, n_before)
    shadows, twins = run_with_twins(optimizer, lambda g, **more: kind(g, **settings, **more), closure)
    assert_same_tensors(shadows, twins, read_tensors(optimizer))


def test_a_group_added_later_starts_from_zero_with_its_own_count() -> None:
    one, other = nn.Parameter(torch.ones(2)), nn.Parameter(torch.full((3,), 2.0))
    optimizer = torch.optim.AdamW([one])
    shadows = ShadowSecondMoments(optimizer, [0.9])
    train(optimizer, lambda: (one**3).sum(), 3)
    optimizer.add_param_group({"params": [other]})
    train(optimizer, lambda: (one**3).sum() + (other**2).sum(), 1)
    first, second = shadows.view(0.9, read_tensors(optimizer))
    assert (first.n_steps, second.n_steps) == (4, 1)
    torch.testing.assert_close(second.v_hat, torch.full((3,), 16.0))


def test_a_parameter_without_a_gradient_does_not_decay() -> None:
    used, idle = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([used, idle])
    shadows = ShadowSecondMoments(optimizer, [0.5])
    train(optimizer, lambda: used.sum() + idle.sum(), 1)
    train(optimizer, lambda: used.square().sum(), 5)
    found = shadows.view(0.5, read_tensors(optimizer))[1]
    torch.testing.assert_close(found.second_moment, torch.full((2,), 0.5))
    assert found.n_steps == 1


@pytest.mark.parametrize("is_fused", [False, True])
def test_a_step_that_a_scaler_skipped_is_not_counted(is_fused: bool) -> None:
    p = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([p], fused=is_fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    shadows = ShadowSecondMoments(optimizer, [0.9])
    for factor in (1.0, float("inf"), 1.0):
        optimizer.zero_grad()
        scaler.scale((factor * p).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
    found = shadows.view(0.9, read_tensors(optimizer))[0]
    assert found.n_steps == 2
    torch.testing.assert_close(found.v_hat, torch.ones(2))


def test_gradients_zeroed_right_after_the_step_have_been_seen() -> None:
    p = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.AdamW([p])
    shadows = ShadowSecondMoments(optimizer, [0.9])
    (3 * p).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    assert float(shadows.view(0.9, read_tensors(optimizer))[0].v_hat) == pytest.approx(9.0)


def test_a_loaded_state_is_a_new_start() -> None:
    model, closure = tanh_regression()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    shadows = ShadowSecondMoments(optimizer, OTHERS)
    train(optimizer, closure, 5)
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    before = [t.second_moment.clone() for t in read_tensors(optimizer)]
    optimizer.zero_grad()
    closure().backward()
    gradients = [p.grad.square() for p in model.parameters() if p.grad is not None]
    optimizer.step()
    for tensor, v, square in zip(shadows.view(0.9, read_tensors(optimizer)), before, gradients, strict=True):
        torch.testing.assert_close(tensor.second_moment, 0.9 * v + 0.1 * square)


def test_training_and_state_dict_are_bit_for_bit_as_without() -> None:
    runs = []
    for others in ((), OTHERS):
        model, closure = tanh_regression()
        optimizer = InstrumentedAdamW(model.parameters(), lr=0.01, update_clip=0.5)
        kept = [ShadowSecondMoments(optimizer, others)] if others else []
        train(optimizer, closure, 30)
        runs.append((list(model.parameters()), optimizer.state_dict(), kept))
    (plain, state, _), (watched, other, _) = runs
    assert all(torch.equal(one, two) for one, two in zip(plain, watched, strict=True))
    assert state["param_groups"] == other["param_groups"]
    for index, entry in state["state"].items():
        assert entry.keys() == other["state"][index].keys()
        assert all(torch.equal(value, other["state"][index][key]) for key, value in entry.items())


def test_a_forgotten_shadow_leaves_nothing_behind() -> None:
    p = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.AdamW([p])
    shadows = ShadowSecondMoments(optimizer, [0.9])
    alive = weakref.ref(shadows)
    del shadows
    gc.collect()
    assert alive() is None
    assert not optimizer._optimizer_step_post_hooks and not optimizer._optimizer_step_pre_hooks
    train(optimizer, lambda: p.sum(), 1)


@pytest.mark.parametrize(
    "values", [(), (0.0,), (1.0,), (0.9, 0.9), (True,), ("0.9",), tuple(i / 10 for i in range(1, 10)), (float("nan"),)]
)
def test_values_out_of_range_are_refused(values: Any) -> None:
    optimizer = torch.optim.AdamW([nn.Parameter(torch.ones(1))])
    with pytest.raises(ValueError, match=r"shadow_beta2 must be 1 to 8 different numbers, each 0 < beta2 < 1, but got"):
        ShadowSecondMoments(optimizer, values)


def test_optimizers_whose_v_would_be_another_are_refused() -> None:
    p = nn.Parameter(torch.ones(1))
    with pytest.raises(MeasurementError, match=r"with shadow_beta2 the optimizer must be .*AdamW, but got RMSprop"):
        ShadowSecondMoments(torch.optim.RMSprop([p]), [0.9])
    for name, value in (("second_moment_clip", 5000.0), ("second_moment_reset", 5.0), ("beta2_exponent", 0.8)):
        mitigated = InstrumentedAdamW([p], **{name: value})  # type: ignore[arg-type]
        with pytest.raises(MeasurementError, match=rf"{name} must be None, .* but got {value}"):
            ShadowSecondMoments(mitigated, [0.9])
    late = InstrumentedAdamW([p])
    shadows = ShadowSecondMoments(late, [0.9])
    late.add_param_group({"params": [nn.Parameter(torch.ones(1))], "second_moment_clip": 5000.0})
    with pytest.raises(MeasurementError, match="second_moment_clip must be None"):
        shadows.view(0.9, read_tensors(late))
