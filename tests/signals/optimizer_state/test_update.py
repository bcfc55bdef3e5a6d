"""What is read of an optimizer makes its real step: without momentum the step follows from the view alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from stabletune.optim import InstrumentedAdamW
from stabletune.signals.optimizer_state.reading import read_tensors

NO_MOMENTUM = {"betas": (0.0, 0.9), "lr": 0.03, "eps": 1e-2}
CASES: list[tuple[Any, dict[str, Any]]] = [
    (torch.optim.Adam, NO_MOMENTUM | {"weight_decay": 0.5}),
    (torch.optim.Adam, NO_MOMENTUM | {"amsgrad": True, "maximize": True}),
    (torch.optim.Adam, NO_MOMENTUM | {"capturable": False, "foreach": True}),
    (torch.optim.AdamW, NO_MOMENTUM | {"weight_decay": 0.5, "fused": True}),
    (InstrumentedAdamW, NO_MOMENTUM | {"weight_decay": 5.0, "update_clip": 0.5, "max_grad_norm": 0.3}),
    (InstrumentedAdamW, NO_MOMENTUM | {"beta2_exponent": 0.8}),
    (InstrumentedAdamW, NO_MOMENTUM | {"second_moment_reset": 1.2, "amsgrad": True}),
    (InstrumentedAdamW, NO_MOMENTUM | {"second_moment_reset": 1.2, "beta2_exponent": 0.5, "update_clip": 0.5}),
    (torch.optim.NAdam, NO_MOMENTUM | {"weight_decay": 0.5}),
    (torch.optim.NAdam, NO_MOMENTUM | {"weight_decay": 0.5, "decoupled_weight_decay": True, "foreach": True}),
    (torch.optim.RAdam, NO_MOMENTUM | {"weight_decay": 0.5}),
    (torch.optim.RAdam, NO_MOMENTUM | {"weight_decay": 0.5, "decoupled_weight_decay": True, "foreach": True}),
    (torch.optim.RMSprop, {"alpha": 0.9, "eps": 1e-2, "weight_decay": 0.5, "maximize": True}),
    (torch.optim.RMSprop, {"alpha": 0.9, "eps": 1e-2, "centered": True, "foreach": True}),
    (torch.optim.Adagrad, {"lr": 0.1, "lr_decay": 0.3, "weight_decay": 0.5, "initial_accumulator_value": 0.2}),
    (torch.optim.Adagrad, {"lr": 0.1, "eps": 0.1, "foreach": True}),
]


@pytest.mark.parametrize(("kind", "settings"), CASES)
def test_without_momentum_the_view_makes_the_step_that_the_optimizer_takes(kind: Any, settings: dict[str, Any]) -> None:
    draw = torch.Generator().manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(4, generator=draw, dtype=torch.float64)) for _ in range(2)]
    optimizer = kind([{"params": params[:1]}, {"params": params[1:], "lr": 0.02}], **settings)
    sign = -1.0 if settings.get("maximize") else 1.0
    for t in range(1, 13):
        before = [p.detach().clone() for p in params]
        gradients = [torch.randn(4, generator=draw, dtype=torch.float64) for _ in params]
        for p, g in zip(params, gradients, strict=True):
            p.grad = g.clone()
        optimizer.step()
        for tensor, start, g in zip(read_tensors(optimizer), before, gradients, strict=True):
            assert tensor.n_steps == t
            root = tensor.v_hat_root + tensor.eps if tensor.is_preconditioned else 1.0
            moved = tensor.clip_factor * tensor.step_size * (sign * g + tensor.l2 * start) / root
            expected = (1 - tensor.shrinkage) * start - moved
            torch.testing.assert_close(tensor.param.detach(), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("kind", "settings"), CASES)
def test_the_second_moment_takes_in_what_the_view_says(kind: Any, settings: dict[str, Any]) -> None:
    p = torch.nn.Parameter(torch.ones(4, dtype=torch.float64))
    optimizer = kind([p], **{name: value for name, value in settings.items() if name != "max_grad_norm"})
    old = torch.full_like(p, settings.get("initial_accumulator_value", 0.0))
    for t in range(1, 16):
        g, start = torch.linspace(-1, 1, 4, dtype=torch.float64) / t, p.detach().clone()
        p.grad = g.clone()
        optimizer.step()
        (tensor,) = read_tensors(optimizer)
        entering = (-g if settings.get("maximize") else g) + tensor.l2 * start
        new = tensor.beta2 * old + tensor.entry_share * entering.square()
        torch.testing.assert_close(tensor.second_moment, new)
        old = new


def test_radam_is_not_preconditioned_before_its_first_rectified_step() -> None:
    p = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.RAdam([p])
    found = []
    for _ in range(8):
        p.grad = torch.ones_like(p)
        optimizer.step()
        found.append(read_tensors(optimizer)[0].is_preconditioned)
    assert found == [False] * 5 + [True] * 3


def test_a_centered_moment_below_zero_by_rounding_reads_as_zero() -> None:
    p = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.RMSprop([p], centered=True)
    p.grad = torch.ones_like(p)
    optimizer.step()
    optimizer.state[p]["square_avg"].fill_(1.0)
    optimizer.state[p]["grad_avg"].fill_(1.0000001)
    assert read_tensors(optimizer)[0].v_hat_root.tolist() == [0.0, 0.0]
