from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stabletune.monitor import StabilityMonitor
from stabletune.monitor.glance import glance
from stabletune.optim import InstrumentedAdamW
from stabletune.signals.gradient_norm import gradient_norm
from stabletune.signals.optimizer_state.reading import read_tensors
from stabletune.signals.oscillation import oscillation
from stabletune.signals.update_rms import update_rms
from stabletune.signals.v_hat_staleness import sum_second_moments, v_hat_decay, v_hat_staleness


def net() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)), torch.randn(20, 3)


def backward(model: nn.Module, x: Tensor) -> Tensor:
    model.zero_grad()
    loss: Tensor = (model(x)[:, 0] - x[:, 0].sin()).square().mean()
    loss.backward()  # type: ignore[no-untyped-call]
    return loss


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (torch.optim.AdamW, {}),
        (torch.optim.Adam, {"weight_decay": 0.1}),
        (torch.optim.AdamW, {"amsgrad": True}),
        (torch.optim.AdamW, {"maximize": True, "eps": 0.05}),
        (torch.optim.Adam, {"maximize": True, "weight_decay": 0.1}),
        (InstrumentedAdamW, {"update_clip": 0.1}),
        (InstrumentedAdamW, {"max_grad_norm": 1e6}),
        (InstrumentedAdamW, {"second_moment_clip": 5000.0}),
        (InstrumentedAdamW, {"second_moment_reset": 2.0}),
        (InstrumentedAdamW, {"beta2_exponent": 0.8}),
        (torch.optim.NAdam, {}),
        (torch.optim.RAdam, {"eps": 0.01}),
        (torch.optim.RMSprop, {"momentum": 0.5}),
        (torch.optim.RMSprop, {"weight_decay": 0.01}),
        (torch.optim.RMSprop, {"centered": True}),
        (torch.optim.Adagrad, {"lr_decay": 0.1}),
    ],
)
def test_a_glance_agrees_with_the_signals_it_stands_for(kind: Any, settings: dict[str, Any]) -> None:
    model, x = net()
    one, other = ({"betas": (0.9, 0.95)}, {"betas": (0.9, 0.99)})
    if kind in (torch.optim.RMSprop, torch.optim.Adagrad):
        one, other = ({"alpha": 0.95}, {"alpha": 0.99}) if kind is torch.optim.RMSprop else ({}, {})
    groups = [{"params": model[0].parameters(), **one}, {"params": model[2].parameters(), **other}]
    optimizer = kind(groups, lr=1e-2, **settings)
    for _ in range(12):
        before = sum_second_moments(optimizer)
        backward(model, x)
        old = [p.detach().clone() for p in model.parameters()]
        optimizer.step()
    tensors = read_tensors(optimizer)
    raw = [p.grad for p in model.parameters() if p.grad is not None]
    with torch.no_grad():  # the decay enters with the parameters of before the step; close to those of after it
        sign = -1 if settings.get("maximize") else 1
        entering = [sign * g + t.l2 * p for g, t, p in zip(raw, tensors, old, strict=True)]
    found = glance(optimizer)
    assert found["gradient_norm"] == pytest.approx(gradient_norm(raw), rel=1e-5)
    rel = 0.05 if tensors[0].l2 else 1e-4
    assert found["v_hat_staleness"] == pytest.approx(v_hat_staleness(tensors, entering), rel=rel)
    assert found["update_rms"] == pytest.approx(update_rms(tensors, entering), rel=rel)
    expected = oscillation(tensors, entering)
    assert (expected is None) == ("oscillation_energy" not in found)
    if expected is not None:
        assert found["oscillation_energy"] == pytest.approx(expected.energy, rel=rel)
        assert found["oscillation_refill"] == pytest.approx(expected.refill, rel=rel)
    if settings.keys() - {"maximize", "eps", "momentum"}:
        assert "v_hat_decay" not in found
    else:
        assert found["v_hat_decay"] == pytest.approx(v_hat_decay(before, sum_second_moments(optimizer)), abs=1e-4)


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
def test_sparse_gradients_are_not_read() -> None:
    model = nn.Embedding(5, 3, sparse=True)
    optimizer = torch.optim.Adagrad(model.parameters())
    model(torch.tensor([1, 2])).square().sum().backward()
    optimizer.step()
    assert glance(optimizer) == {}


@pytest.mark.parametrize("spoil", ["gone", "zeroed", "scaled up", "nan"])
def test_gradients_that_the_step_did_not_use_are_not_read(spoil: str) -> None:
    model, x = net()
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.9))
    for _ in range(3):
        backward(model, x)
        optimizer.step()
    for p in model.parameters():
        assert p.grad is not None
        if spoil == "gone":
            p.grad = None
        else:
            p.grad.mul_({"zeroed": 0.0, "scaled up": 1024.0, "nan": float("nan")}[spoil])
    assert glance(optimizer) == {}


def test_of_gradients_clipped_in_place_only_their_oscillation_is_read() -> None:
    model, x = net()
    optimizer = InstrumentedAdamW(model.parameters(), max_grad_norm=1e-3)
    for _ in range(3):
        backward(model, x)
        optimizer.step()
    found = glance(optimizer)
    tensors = read_tensors(optimizer)
    expected = oscillation(tensors, [t.param.grad for t in tensors if t.param.grad is not None])
    assert expected is not None
    assert found == {"oscillation_energy": expected.energy, "oscillation_refill": expected.refill}


def test_before_the_first_step_there_is_nothing_to_see() -> None:
    model, _ = net()
    assert glance(torch.optim.AdamW(model.parameters())) == {}


def test_a_glance_changes_nothing() -> None:
    model, x = net()
    optimizer = torch.optim.Adam(model.parameters(), weight_decay=0.1)
    backward(model, x)
    optimizer.step()
    before = [v.clone() for p in model.parameters() for v in (p, p.grad, *optimizer.state[p].values())]
    glance(optimizer)
    after = [v for p in model.parameters() for v in (p, p.grad, *optimizer.state[p].values())]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


@pytest.mark.parametrize("has_probe", [False, True])
def test_the_monitor_fills_the_time_between_measurements_with_glances(has_probe: bool) -> None:
    model, x = net()
    optimizer = torch.optim.AdamW(model.parameters())

    def closure() -> Tensor:
        loss: Tensor = (model(x)[:, 0] - x[:, 0].sin()).square().mean()
        return loss

    monitor = StabilityMonitor(model, optimizer, closure if has_probe else None, overhead=0.15, steps=400)
    found = []
    for _ in range(400):
        loss = backward(model, x)
        optimizer.step()
        found.append(monitor.step(loss, closure))
    readings = [reading for reading in found if reading is not None]
    glances = [reading for reading in readings if reading.sharpness_ratio is None]
    assert len(readings) - len(glances) >= 2
    assert (len(glances) == 0) if has_probe else (4 <= len(glances) <= 14)
    assert all(g.v_hat_staleness and g.update_rms and g.gradient_norm and g.v_hat_decay is not None for g in glances)
    assert monitor.overhead <= 0.15


def trained(steps: int, **settings: Any) -> tuple[StabilityMonitor, list[Any]]:
    """A monitor after some steps, and what it read."""
    model, x = net()
    optimizer = torch.optim.AdamW(model.parameters())

    def closure() -> Tensor:
        loss: Tensor = (model(x)[:, 0] - x[:, 0].sin()).square().mean()
        return loss

    probe = closure if settings.pop("has_probe", False) else None
    monitor, found = StabilityMonitor(model, optimizer, probe, **settings), []
    for _ in range(steps):
        loss = backward(model, x)
        optimizer.step()
        found.append(monitor.step(loss, closure))
    return monitor, found


def test_a_glance_is_given_when_asked_for_although_none_is_due() -> None:
    monitor, found = trained(119, overhead=0.15)
    assert found[-1] is None
    reading = monitor.glance(1.0)
    assert reading is not None and reading.step == 119 and reading.sharpness_ratio is None
    assert reading.oscillation_energy is not None and reading.oscillation_refill is not None
    assert monitor.glance(1.0) is None, "not twice at one step"


@pytest.mark.parametrize("settings", [{"every": 7}, {"overhead": 0.15, "has_probe": True}], ids=str)
def test_where_the_monitor_gives_no_glances_none_is_given_when_asked_for(settings: dict[str, Any]) -> None:
    monitor, _ = trained(20, **settings)
    assert monitor.glance(1.0) is None


def test_every_nth_measurement_has_the_oscillation_in_it() -> None:
    _, found = trained(20, every=5)
    readings = [reading for reading in found if reading is not None]
    assert [reading.step for reading in readings] == [5, 10, 15, 20]
    assert all(reading.oscillation_energy and reading.oscillation_refill for reading in readings)
