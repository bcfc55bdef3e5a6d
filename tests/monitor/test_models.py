"""The sharpness ratio of the models people use: right, without a trace, or a named error."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stabletune.errors import MeasurementError
from stabletune.monitor import StabilityMonitor
from stabletune.records import Measurement
from tests.monitor import models
from tests.monitor.models import EXACT, Loss, Task
from tests.reference.dense_sharpness import dense_hessian, dense_spectrum, weights


def dense(model: nn.Module, loss: Loss, optimizer: torch.optim.Optimizer) -> float:
    """S of a copy in float64, over the parameters that have taken a step."""
    twin = copy.deepcopy(model).double()
    copies = dict(zip(model.parameters(), twin.parameters(), strict=True))
    groups = [{**g, "params": [p for p in g["params"] if p in optimizer.state]} for g in optimizer.param_groups]
    state = torch.get_rng_state()
    hessian = dense_hessian(lambda: loss(twin), [copies[p] for g in groups for p in g["params"]])
    torch.set_rng_state(state)
    view: Any = SimpleNamespace(param_groups=groups, state=optimizer.state)
    return float(dense_spectrum(hessian, weights(view))[-1])


def adamw(model: nn.Module, eps: float = 1e-8) -> torch.optim.AdamW:
    trainable = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.AdamW(trainable, lr=0.01, betas=(0.9, 0.95), eps=eps)


def traces(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[Any]:
    """Everything that measuring might touch, as values."""
    gradients = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    state = [value for entry in optimizer.state.values() for value in entry.values()]
    return [
        *(value.clone() for value in model.state_dict().values()),
        *gradients,
        *(value.clone() if isinstance(value, Tensor) else value for value in state),
        torch.get_rng_state(),
        random.getstate(),
        np.random.get_state()[1].tolist(),
        [module.training for module in model.modules()],
    ]


def same(one: Any, other: Any) -> bool:
    return torch.equal(one, other) if isinstance(one, Tensor) else bool(one == other)


def measured(model: nn.Module, optimizer: torch.optim.Optimizer, closure: Callable[[], Tensor]) -> Measurement:
    """Five steps, a reading after each one; asserts that none leaves a trace."""
    monitor = StabilityMonitor(model, optimizer, every=1)
    for _ in range(5):
        optimizer.zero_grad()
        loss = closure()
        loss.backward()
        optimizer.step()
        before = traces(model, optimizer)
        reading = monitor.step(loss, closure)
        assert all(same(one, other) for one, other in zip(before, traces(model, optimizer), strict=True))
    assert reading is not None and reading.sharpness_ratio is not None
    return reading


@pytest.mark.parametrize("task", EXACT, ids=lambda task: task.__name__)
def test_the_sharpness_ratio_agrees_with_the_dense_one_and_nothing_is_disturbed(task: Callable[[], Task]) -> None:
    torch.manual_seed(0)
    model, loss = task()
    optimizer = adamw(model)
    reading = measured(model, optimizer, lambda: loss(model))
    assert reading.sharpness_ratio == pytest.approx(dense(model, loss, optimizer), rel=0.01)


def test_rows_never_seen_change_nothing() -> None:
    ratios = []
    tokens = torch.tensor([0, 1, 2, 1, 0])
    for rows in (3, 9):
        table = models.inputs(9, 3).float()
        model = nn.Embedding.from_pretrained(table[:rows].clone(), freeze=False)
        reading = measured(model, adamw(model), lambda m=model: nn.functional.cross_entropy(m(tokens), tokens))
        assert reading.sharpness_ratio_masked == pytest.approx(reading.sharpness_ratio)
        ratios.append(reading.sharpness_ratio)
    assert ratios[0] == pytest.approx(ratios[1], rel=0.01)


def perceptron() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 1))


def square(model: nn.Module, x: Tensor) -> Tensor:
    return (model(x) - x.sin().mean(-1, keepdim=True)).square().mean()


@pytest.mark.parametrize("scale", [1.0, 1e-6])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_is_measured_within_its_rounding_even_with_gradients_below_float16(
    dtype: torch.dtype, scale: float
) -> None:
    model = perceptron()
    x = models.inputs(16, 3).float()
    optimizer = adamw(model, eps=1e-14)
    scaler = torch.amp.GradScaler("cpu", enabled=dtype == torch.float16)
    monitor = StabilityMonitor(model, optimizer, every=1)

    def closure() -> Tensor:
        with torch.autocast("cpu", dtype=dtype):
            out = model(x)
        return scale * (out.float() - 1).square().mean()

    for _ in range(5):
        optimizer.zero_grad()
        loss = closure()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        reading = monitor.step(loss, closure)
    assert reading is not None
    exact = dense(model, lambda m: scale * (m(models.like(m, x)) - 1).square().mean(), optimizer)
    assert reading.sharpness_ratio == pytest.approx(exact, rel=0.01)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_held_in_half_precision_is_measured_within_its_rounding(dtype: torch.dtype) -> None:
    model = perceptron().to(dtype)
    x = models.inputs(16, 3)
    optimizer = adamw(model, eps=1e-4)
    reading = measured(model, optimizer, lambda: square(model, models.like(model, x)))
    exact = dense(model, lambda m: square(m, models.like(m, x)), optimizer)
    assert reading.sharpness_ratio == pytest.approx(exact, rel=0.02)


def test_an_autocast_around_the_whole_step_neither_lends_old_weights_nor_lowers_the_products() -> None:
    model, x = perceptron(), models.inputs(16, 3).float()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.3)
    monitor = StabilityMonitor(model, optimizer, every=1)
    for _ in range(3):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = square(model, x)
            loss.backward()
            optimizer.step()
            reading = monitor.step(loss, lambda: square(model, x))
        assert reading is not None
        assert reading.sharpness_ratio == pytest.approx(dense(model, loss_of(x), optimizer), rel=0.02)


def loss_of(x: Tensor) -> Loss:
    return lambda m: square(m, models.like(m, x))


def test_accumulated_gradients_are_kept_while_measuring() -> None:
    model, x = perceptron(), models.inputs(16, 3).float()
    optimizer = adamw(model)
    square(model, x[:8]).backward()
    square(model, x[8:]).backward()
    optimizer.step()
    before = traces(model, optimizer)
    StabilityMonitor(model, optimizer, every=1).step(1.0, lambda: square(model, x))
    assert all(same(one, other) for one, other in zip(before, traces(model, optimizer), strict=True))


def test_a_lazy_buffer_never_used_and_a_buffer_born_while_measuring_leave_no_trace() -> None:
    class Caching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.never = nn.Linear(3, 1), nn.LazyBatchNorm1d()
            self.register_buffer("cache", None)

        def forward(self, x: Tensor) -> Tensor:
            self.cache = torch.ones(1)
            self.register_buffer("second", torch.ones(1))
            return self.body(x)  # type: ignore[no-any-return]

    model, x = Caching(), models.inputs(16, 3).float()
    optimizer = torch.optim.AdamW(model.body.parameters())
    square(model.body, x).backward()
    optimizer.step()
    StabilityMonitor(model, optimizer, every=1).step(1.0, lambda: square(model, x))
    assert model.cache is None
    assert "second" not in dict(model.named_buffers())


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_model_is_measured_or_refused_in_clear_words(backend: str) -> None:
    model, x = perceptron(), models.inputs(16, 3).float()
    compiled = torch.compile(model, backend=backend)
    optimizer = adamw(model)
    if backend == "eager":
        reading = measured(model, optimizer, lambda: square(compiled, x))
        assert reading.sharpness_ratio == pytest.approx(dense(model, loss_of(x), optimizer), rel=0.01)
        return
    with pytest.raises(MeasurementError, match=r"torch\.compile has no double backward.*uncompiled model"):
        measured(model, optimizer, lambda: square(compiled, x))


class One(nn.Module):
    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.full(shape, 1.5))


def zero_here(p: Tensor) -> Tensor:
    return p - p.detach()


@pytest.mark.parametrize(
    ("shape", "loss", "expected"),
    [
        ((), lambda p: p**4, "dense"),
        ((10,), lambda p: (p**4 * torch.arange(1, 11).to(p)).sum(), "dense"),
        ((0,), lambda p: p.sum(), None),
        ((3,), lambda p: p.sum(), 0.0),
        ((3,), lambda p: zero_here(p).square().sum(), "dense"),
        ((3,), lambda p: -zero_here(p).square().sum(), "dense"),
        ((3,), lambda p: zero_here(p).abs().pow(1.5).sum() + p.square().sum(), None),
        ((3,), lambda p: (p.square().sum() * 1e38) ** 2, None),
    ],
    ids=["scalar", "ten", "empty", "linear", "zero gradient", "saddle", "nan product", "infinite"],
)
def test_degenerate_losses_give_a_finite_number_or_none(shape: tuple[int, ...], loss: Any, expected: Any) -> None:
    model = One(*shape)
    optimizer = adamw(model)
    monitor = StabilityMonitor(model, optimizer, every=1)
    model.p.grad = torch.autograd.grad(loss(model.p), model.p)[0].nan_to_num(posinf=1.0)
    optimizer.step()
    reading = monitor.step(1.0, lambda: loss(model.p))
    assert reading is not None
    wanted = dense(model, lambda m: loss(m.p), optimizer) if expected == "dense" else expected
    assert reading.sharpness_ratio == (None if wanted is None else pytest.approx(wanted, rel=1e-4))


def test_an_empty_tensor_beside_others_and_frozen_parameters_alone_are_no_error() -> None:
    model, x = perceptron(), models.inputs(16, 3).float()
    model.nothing = nn.Parameter(torch.zeros(0))
    assert measured(model, adamw(model), lambda: square(model, x) + model.nothing.sum()).sharpness_ratio
    model.requires_grad_(False)
    reading = StabilityMonitor(model, torch.optim.AdamW(model.parameters()), every=1).step(
        1.0, lambda: square(model, x)
    )
    assert reading is not None and reading.sharpness_ratio is None


def test_five_million_parameters_of_which_few_are_used_are_measured_like_the_few() -> None:
    ratios = []
    for rows in (100, 50_000):
        torch.manual_seed(0)
        model = nn.Embedding(rows, 100)
        optimizer = adamw(model)
        model(torch.arange(100)).square().mean().backward()
        optimizer.step()
        reading = StabilityMonitor(model, optimizer, every=1).step(
            1.0, lambda m=model: m(torch.arange(100)).square().mean()
        )
        assert reading is not None
        ratios.append(reading.sharpness_ratio)
    assert ratios[0] == pytest.approx(ratios[1], rel=0.01)


@pytest.mark.parametrize(
    ("closure", "words"),
    [
        (lambda m, x: square(m, x).detach(), "without a gradient"),
        (lambda m, x: square(perceptron(), x), "has a gradient for none of them"),
    ],
    ids=["detached", "another model's"],
)
def test_a_loss_of_nothing_that_is_trained_is_refused_at_its_step_and_the_next_call_may_follow(
    closure: Any, words: str
) -> None:
    model, x = perceptron(), models.inputs(16, 3).float()
    optimizer = adamw(model)
    monitor = StabilityMonitor(model, optimizer, every=2)
    square(model, x).backward()
    optimizer.step()
    assert monitor.step(1.0, lambda: closure(model, x)) is None
    before = traces(model, optimizer)
    with pytest.raises(MeasurementError, match=f"^step 2: StabilityMonitor: .*{words}"):
        monitor.step(1.0, lambda: closure(model, x))
    assert all(same(one, other) for one, other in zip(before, traces(model, optimizer), strict=True))
    assert monitor.step(1.0) is None
    reading = monitor.step(1.0, lambda: square(model, x))
    assert reading is not None and reading.sharpness_ratio is not None and reading.step == 4


def test_without_curvature_the_free_signals_go_on() -> None:
    model, x = perceptron(), models.inputs(16, 3).float()
    optimizer = adamw(model)
    monitor = StabilityMonitor(model, optimizer, every=1)
    monitor.forgo_curvature()
    readings = []
    for _ in range(2):
        optimizer.zero_grad()
        loss = square(model, x)
        loss.backward()
        optimizer.step()
        readings.append(monitor.step(loss, lambda: square(model, x).detach()))
    assert readings[1] is not None and readings[1].sharpness_ratio is None
    assert readings[1].v_hat_staleness is not None and readings[1].v_hat_decay is not None
