from __future__ import annotations

import copy
import gc
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stabletune.errors import MeasurementError
from stabletune.monitor import StabilityMonitor
from stabletune.optim import InstrumentedAdamW
from stabletune.records import Measurement
from tests.reference.dense_sharpness import dense_sharpness
from tests.signals.problems import Quadratic, train


class OneDimensional(nn.Module):
    """L = θ²/2 from θ = 1, in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.ones(1, dtype=torch.float64))

    def loss(self) -> Tensor:
        return 0.5 * self.theta.square().sum()


class Everything(nn.Module):
    """Tied embedding, LayerNorm, attention, BatchNorm, dropout; a frozen and an unused parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 8)
        self.block = nn.TransformerEncoderLayer(8, 2, 8, dropout=0.2, batch_first=True)
        self.norm = nn.BatchNorm1d(8)
        self.head = nn.Linear(8, 7)
        self.head.weight = self.embedding.weight
        self.unused = nn.Parameter(torch.ones(3))
        self.frozen = nn.Parameter(torch.ones(8), requires_grad=False)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.block(self.embedding(tokens)) * self.frozen
        return self.head(self.norm(hidden.transpose(1, 2)).transpose(1, 2))

    def loss(self, tokens: Tensor) -> Tensor:
        return nn.functional.cross_entropy(self(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())


def readings_of(optimizer: Any, module: OneDimensional, steps: int) -> list[Measurement]:
    monitor = StabilityMonitor(module, optimizer, every=1)
    found = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = module.loss()
        loss.backward()
        optimizer.step()
        reading = monitor.step(loss, module.loss)
        assert reading is not None and reading.sharpness_ratio is not None
        found.append(reading)
        if reading.sharpness_ratio > 1:
            break
    return found


@pytest.mark.parametrize(
    ("make", "beta2", "first"),
    [(torch.optim.Adam, 0.99, 888), (torch.optim.Adam, 0.95, 216), (InstrumentedAdamW, 0.95, 216)],
)
def test_adam_on_a_parabola_first_passes_the_edge_at_the_known_step(make: Any, beta2: float, first: int) -> None:
    module = OneDimensional()
    optimizer = make(module.parameters(), lr=0.1, betas=(0.9, beta2), eps=1e-8, weight_decay=0.0)
    readings = readings_of(optimizer, module, 1200)
    assert readings[-1].step == len(readings) == first
    assert readings[-1].v_hat_decay == pytest.approx(1.0, abs=1e-3)
    if beta2 == 0.99:
        assert 38 * (readings[-1].sharpness_ratio or 0.0) == pytest.approx(38.15, abs=0.005)


def test_a_large_eps_keeps_adam_on_a_parabola_below_the_edge_for_ever() -> None:
    module = OneDimensional()
    optimizer = torch.optim.Adam(module.parameters(), lr=0.1, betas=(0.9, 0.99), eps=1e-2)
    readings = readings_of(optimizer, module, 1000)
    assert len(readings) == 1000
    assert max(r.sharpness_ratio or 0.0 for r in readings) < 1


def everything(seed: int = 0) -> tuple[Everything, InstrumentedAdamW, Tensor]:
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)
    model = Everything()
    optimizer = InstrumentedAdamW(model.parameters(), lr=3e-3, update_clip=1.0, max_grad_norm=1.0)
    return model, optimizer, torch.randint(0, 7, (6, 5))


def run(every: int | None, steps: int = 30) -> tuple[Everything, InstrumentedAdamW, list[Measurement]]:
    model, optimizer, tokens = everything()
    monitor = StabilityMonitor(model, optimizer, every=every) if every else None
    readings = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model.loss(tokens)
        loss.backward()
        optimizer.step()
        if monitor is not None:
            gradients = [(p.grad, None if p.grad is None else p.grad.clone()) for p in model.parameters()]
            reading = monitor.step(loss, lambda: model.loss(tokens))
            for p, (gradient, value) in zip(model.parameters(), gradients, strict=True):
                assert p.grad is gradient
                assert gradient is None or (value is not None and torch.equal(gradient, value))
            if reading is not None:
                readings.append(reading)
    return model, optimizer, readings


def test_training_is_bit_for_bit_the_same_with_and_without_measuring() -> None:
    plain, plain_optimizer, _ = run(None)
    states = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist())
    measured, measured_optimizer, readings = run(2)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.random.get_state()[1].tolist() == states[2]
    for one, other in zip(plain.state_dict().values(), measured.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    ours, theirs = measured_optimizer.state_dict()["state"], plain_optimizer.state_dict()["state"]
    assert ours.keys() == theirs.keys()
    for key in ours:
        assert all(torch.equal(ours[key][name], theirs[key][name]) for name in theirs[key])
    assert all(module.training for module in measured.modules())
    assert len(readings) == 15
    for reading in readings:
        assert reading.sharpness_ratio is not None and reading.gradient_curvature_ratio is not None
        assert reading.residual is not None
        assert reading.gradient_curvature_ratio <= reading.sharpness_ratio * (1 + 1e-4)


def test_every_reading_agrees_with_the_dense_twin() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(5, 3), nn.LayerNorm(3), nn.Linear(3, 5))
    tokens = torch.arange(5)
    optimizer = torch.optim.AdamW(
        [{"params": model[0].parameters(), "lr": 0.05}, {"params": [*model[1].parameters(), *model[2].parameters()]}],
        lr=0.01,
        betas=(0.9, 0.95),
    )

    def closure() -> Tensor:
        return nn.functional.cross_entropy(model(tokens), tokens.flip(0))

    monitor = StabilityMonitor(model, optimizer, every=1)
    for _ in range(25):
        optimizer.zero_grad()
        loss = closure()
        loss.backward()
        optimizer.step()
        reading = monitor.step(loss, closure)
        assert reading is not None
        if reading.has_converged:
            assert reading.sharpness_ratio == pytest.approx(dense_sharpness(optimizer, closure), rel=0.01)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (torch.optim.NAdam, {"betas": (0.9, 0.95), "lr": 0.01}),
        (torch.optim.RAdam, {"betas": (0.9, 0.95), "lr": 0.01, "weight_decay": 0.1, "decoupled_weight_decay": True}),
        (torch.optim.RMSprop, {"alpha": 0.95, "lr": 0.005, "momentum": 0.5, "weight_decay": 0.01}),
        (torch.optim.RMSprop, {"alpha": 0.95, "lr": 0.005, "centered": True}),
        (torch.optim.Adagrad, {"lr": 0.05, "lr_decay": 0.01}),
    ],
)
def test_every_optimizer_is_read_in_agreement_with_the_dense_twin(kind: Any, settings: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 1))
    x = torch.randn(20, 2)
    optimizer = kind(model.parameters(), **settings)

    def closure() -> Tensor:
        return (model(x)[:, 0] - x.prod(dim=1)).square().mean()

    monitor = StabilityMonitor(model, optimizer, every=1)
    readings = []
    for _ in range(25):
        reading = monitor.step(step(optimizer, closure), closure)
        assert reading is not None
        readings.append(reading)
        if reading.has_converged:
            assert reading.sharpness_ratio == pytest.approx(dense_sharpness(optimizer, closure), rel=0.01)
    assert sum(bool(reading.has_converged) for reading in readings) >= 20
    assert all(reading.v_hat_staleness and reading.update_rms for reading in readings)
    assert all((reading.v_hat_decay is None) == (kind is torch.optim.Adagrad) for reading in readings[1:])


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
def test_sparse_gradients_are_measured_like_dense_ones() -> None:
    readings = []
    for sparse in (False, True):
        model = nn.Embedding(5, 3, sparse=sparse)
        with torch.no_grad():
            model.weight.copy_(torch.arange(15.0).reshape(5, 3) + 1)
        optimizer = torch.optim.Adagrad(model.parameters(), lr=0.1)
        monitor = StabilityMonitor(model, optimizer, every=1)

        def closure(model: nn.Module = model) -> Tensor:
            return model(torch.tensor([1, 2, 1])).pow(3).sum()

        for _ in range(2):
            reading = monitor.step(step(optimizer, closure), closure)
        assert reading is not None and reading.sharpness_ratio is not None
        readings.append((reading.sharpness_ratio, reading.gradient_norm, reading.v_hat_staleness, reading.update_rms))
    assert readings[0] == pytest.approx(readings[1])


def test_dead_inputs_are_finite_and_change_nothing() -> None:
    ratios = []
    for n_dead in (0, 4):
        generator = torch.Generator().manual_seed(0)
        x = torch.cat([torch.randn(30, 3, generator=generator), torch.zeros(30, n_dead)], dim=1)
        model = nn.Linear(3 + n_dead, 1, bias=False)
        with torch.no_grad():
            model.weight.fill_(0.1)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.0)
        monitor = StabilityMonitor(model, optimizer, every=1)

        def closure(model: nn.Module = model, x: Tensor = x) -> Tensor:
            return (model(x)[:, 0] - x[:, 0].sin()).square().mean()

        for _ in range(5):
            optimizer.zero_grad()
            closure().backward()
            optimizer.step()
            reading = monitor.step(0.0, closure)
        assert reading is not None and reading.sharpness_ratio is not None
        assert reading.sharpness_ratio_masked == pytest.approx(reading.sharpness_ratio)
        ratios.append(reading.sharpness_ratio)
    assert ratios[0] == pytest.approx(ratios[1], rel=1e-4)


def census() -> tuple[int, int]:
    gc.collect()
    return len(gc.get_objects()), sum(issubclass(type(found), Tensor) for found in gc.get_objects())


def test_two_hundred_measurements_leak_nothing() -> None:
    model, optimizer, tokens = everything()
    monitor = StabilityMonitor(model, optimizer, every=1)
    model.loss(tokens).backward()
    optimizer.step()

    def measure(times: int) -> None:
        for _ in range(times):
            monitor.step(1.0, lambda: model.loss(tokens))

    measure(25)
    before = census()
    gc.disable()
    try:
        measure(200)
        tensors = sum(issubclass(type(found), Tensor) for found in gc.get_objects())
    finally:
        gc.enable()
    after = census()
    assert abs(after[1] - before[1]) <= 2
    assert abs(tensors - before[1]) <= 2  # reference counting alone frees every graph
    assert after[0] - before[0] < 100


def tiny() -> tuple[nn.Module, torch.optim.Optimizer, Callable[[], Tensor]]:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(model.parameters())
    x = torch.tensor([[1.0, 2.0], [3.0, -1.0]])
    return model, optimizer, lambda: model(x).square().mean()


def step(optimizer: torch.optim.Optimizer, closure: Callable[[], Tensor]) -> Tensor:
    optimizer.zero_grad()
    loss = closure()
    loss.backward()
    optimizer.step()
    return loss


def test_it_measures_at_each_nth_step_and_counts_what_it_spent() -> None:
    model, optimizer, closure = tiny()
    monitor = StabilityMonitor(model, optimizer, every=3)
    found = [monitor.step(step(optimizer, closure), closure) for _ in range(7)]
    assert [reading.step for reading in found if reading is not None] == [3, 6]
    assert monitor.spent > 0
    assert monitor.overhead == pytest.approx(monitor.spent / 7)


def test_the_overhead_is_kept_on_a_real_run() -> None:
    model, optimizer, closure = tiny()
    monitor = StabilityMonitor(model, optimizer, overhead=0.1, steps=1000)
    readings = [monitor.step(step(optimizer, closure), closure) for _ in range(1000)]
    assert 0.03 < monitor.overhead <= 0.1
    assert sum(reading is not None for reading in readings) >= 5


def test_a_probe_takes_the_place_of_the_closure() -> None:
    model, optimizer, closure = tiny()
    monitor = StabilityMonitor(model, optimizer, lambda: 3 * closure(), every=1)
    plain = StabilityMonitor(model, optimizer, every=1)
    loss = step(optimizer, closure)
    probed, direct = monitor.step(loss, closure), plain.step(loss, closure)
    assert probed is not None and direct is not None and direct.gradient_norm is not None
    assert probed.gradient_norm == pytest.approx(3 * direct.gradient_norm)
    assert probed.loss == direct.loss == pytest.approx(float(loss.detach()))


def test_gradients_are_the_closures_raw_ones_not_the_clipped_ones_of_the_step() -> None:
    model, _, closure = tiny()
    optimizer = InstrumentedAdamW(model.parameters(), max_grad_norm=1e-3)
    monitor = StabilityMonitor(model, optimizer, every=1)
    reading = monitor.step(step(optimizer, closure), closure)
    exact = torch.autograd.grad(closure(), list(model.parameters()))
    assert reading is not None
    assert reading.gradient_norm == pytest.approx(float(sum(g.square().sum() for g in exact)) ** 0.5)


def test_without_a_closure_only_what_needs_none_is_read() -> None:
    model, optimizer, closure = tiny()
    monitor = StabilityMonitor(model, optimizer, every=1)
    readings = [monitor.step(step(optimizer, closure)) for _ in range(2)]
    assert readings[1] is not None and readings[1].sharpness_ratio is None
    assert readings[1].v_hat_decay is not None and readings[1].v_hat_staleness is not None


def test_the_overhead_is_kept_without_a_closure_too() -> None:
    shares = []
    for has_closure in (True, False):
        model, optimizer, closure = tiny()
        monitor = StabilityMonitor(model, optimizer, overhead=0.15)
        for _ in range(1200):
            monitor.step(step(optimizer, closure), closure if has_closure else None)
        shares.append(monitor.overhead)
    assert max(shares) <= 0.15 + 1e-9


@pytest.mark.parametrize("steps", [1, 50, 99, 100, 101])
def test_a_run_goes_on_past_the_steps_it_was_said_to_have(steps: int) -> None:
    model, optimizer, closure = tiny()
    monitor = StabilityMonitor(model, optimizer, overhead=0.15, steps=steps)
    for _ in range(150):
        monitor.step(step(optimizer, closure), closure)
    reading = monitor.measure(1.0, closure)
    assert reading.sharpness_ratio is not None
    assert monitor.measure(1.0, closure).step == reading.step


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_leaves_the_fields_empty(bad: float) -> None:
    model, optimizer, closure = tiny()
    monitor = StabilityMonitor(model, optimizer, every=1)
    step(optimizer, closure)
    reading = monitor.step(bad, lambda: closure() * bad)
    assert reading is not None
    assert reading.sharpness_ratio is None and reading.gradient_norm is None
    assert monitor.step(step(optimizer, closure), closure).sharpness_ratio is not None  # type: ignore[union-attr]


def test_before_the_first_optimizer_step_there_is_nothing_to_read() -> None:
    model, optimizer, closure = tiny()
    reading = StabilityMonitor(model, optimizer, every=1).step(1.0, closure)
    assert reading is not None and reading.sharpness_ratio is None


def test_a_maximizing_optimizer_is_measured_on_the_negative_loss() -> None:
    readings = []
    for sign in (1.0, -1.0):
        model = nn.Linear(2, 1)
        with torch.no_grad():
            for p in model.parameters():
                p.fill_(0.5)
        x = torch.tensor([[1.0, 2.0], [3.0, -1.0]])
        optimizer = torch.optim.AdamW(model.parameters(), maximize=sign < 0)

        def closure(model: nn.Module = model, x: Tensor = x, sign: float = sign) -> Tensor:
            return sign * model(x).square().mean()

        readings.append(StabilityMonitor(model, optimizer, every=1).step(step(optimizer, closure), closure))
    assert readings[0] is not None and readings[1] is not None
    assert readings[0].sharpness_ratio == pytest.approx(readings[1].sharpness_ratio)


def test_sparing_copies_the_optimizer_is_untouched_by_an_error() -> None:
    model, optimizer, closure = tiny()
    step(optimizer, closure)
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(MeasurementError):
        StabilityMonitor(model, optimizer, every=1).step(1.0, lambda: torch.ones(3))
    assert torch.equal(before["state"][0]["exp_avg_sq"], optimizer.state_dict()["state"][0]["exp_avg_sq"])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"every": 0}, "every must be a whole number of at least 1, but got 0"),
        ({"every": True}, "every must be"),
        ({"every": 2.0}, "every must be"),
        ({"overhead": 0.0}, "0 < overhead <= 1 must hold, but got 0.0"),
        ({"overhead": 1.5}, "0 < overhead <= 1"),
        ({"steps": 0}, "steps must be"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], words: str) -> None:
    model, optimizer, _ = tiny()
    with pytest.raises(ValueError, match=words):
        StabilityMonitor(model, optimizer, **settings)


@pytest.mark.parametrize("settings", [{"every": 1}, {"every": 15}, {"overhead": 0.5}], ids=str)
def test_an_optimizer_that_never_steps_is_told_of_once(settings: dict[str, Any], caplog: Any) -> None:
    model, optimizer, closure = tiny()
    monitor = StabilityMonitor(model, optimizer, **settings)
    readings = [reading for _ in range(60) if (reading := monitor.step(1.0, closure)) is not None]
    assert readings
    assert all(reading.sharpness_ratio is None for reading in readings)
    assert caplog.text.count("S is not read: the optimizer has taken no step") == 1
    assert "Give the one that trains the model" in str(monitor.note)


def test_first_steps_that_a_scaler_skips_are_no_optimizer_that_never_steps(caplog: Any) -> None:
    model, optimizer, closure = tiny()
    monitor = StabilityMonitor(model, optimizer, every=1)
    for _ in range(20):
        monitor.step(1.0, closure)
    reading = monitor.step(step(optimizer, closure), closure)
    assert reading is not None
    assert reading.sharpness_ratio is not None
    assert (caplog.text, monitor.note) == ("", None)


def test_overhead_is_ignored_when_every_is_given() -> None:
    model, optimizer, closure = tiny()
    monitor = StabilityMonitor(model, optimizer, every=1, overhead=0.0)
    assert monitor.step(step(optimizer, closure), closure) is not None


def test_an_unknown_optimizer_is_refused() -> None:
    model, _, _ = tiny()
    with pytest.raises(MeasurementError, match="but got SGD"):
        StabilityMonitor(model, torch.optim.SGD(model.parameters(), lr=0.1))


@pytest.mark.parametrize(("settings", "is_read"), [({"overhead": 0.5}, False), ({"every": 10}, True)])
def test_a_budgets_first_reading_spends_nothing_on_s_without_the_floor(settings: dict[str, Any], is_read: bool) -> None:
    hessian = torch.diag(torch.tensor([5.0, 1.0], dtype=torch.float64))
    model = Quadratic(hessian, torch.tensor([1e-8, 1.0], dtype=torch.float64))
    optimizer = torch.optim.AdamW([model.theta], lr=1e-9, eps=1e-4)
    monitor = StabilityMonitor(model, optimizer, **settings)
    readings = []
    for _ in range(10):
        train(optimizer, model.loss, 1)
        readings.append(monitor.step(1.0, model.loss))
    first = next(r for r in readings if r is not None and r.sharpness_ratio is not None)
    assert (first.sharpness_ratio_masked is not None) == is_read


@pytest.mark.parametrize("settings", [{"every": 5}, {"overhead": 0.5}], ids=str)
def test_what_fails_after_a_reading_that_succeeded_is_noted_and_stops_no_training(
    settings: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    model, optimizer, closure = tiny()
    monitor = StabilityMonitor(model, optimizer, **settings)
    for n in range(100):
        if n == 50:
            optimizer.param_groups[0]["weight_decay"] = 2.5 / optimizer.param_groups[0]["lr"]
        reading = monitor.step(step(optimizer, closure), closure)
        assert n < 50 or reading is None or reading.sharpness_ratio is None
    assert monitor.note is not None and "lr * weight_decay < 2 must hold" in monitor.note
    assert caplog.text.count("a reading failed and the training goes on") == 1
    optimizer.param_groups[0]["weight_decay"] = 0.0
    found = [monitor.step(step(optimizer, closure), closure) for _ in range(60)]
    assert any(reading is not None and reading.sharpness_ratio is not None for reading in found)


def test_what_cannot_be_watched_is_refused_when_the_monitor_is_made() -> None:
    model, optimizer, _ = tiny()
    with pytest.raises(MeasurementError, match=r"shares none with Linear\. Give the model that this optimizer trains"):
        StabilityMonitor(nn.Linear(3, 3), optimizer)
    with pytest.raises(MeasurementError, match=r"model must be a torch\.nn\.Module, but got NoneType"):
        StabilityMonitor(None, optimizer)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"probe must be None or a function, but got 'x'"):
        StabilityMonitor(model, optimizer, probe="x")  # type: ignore[arg-type]
    unreal = nn.Linear(3, 3, dtype=torch.complex64)
    with pytest.raises(MeasurementError, match=r"parameters must be real, but got torch\.complex64"):
        StabilityMonitor(unreal, torch.optim.Adam(unreal.parameters()))
