from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from stabletune.monitor import StabilityMonitor
from stabletune.optim import InstrumentedAdamW
from stabletune.records import Measurement
from tests.monitor.test_shadow_reading import step, transformer
from tests.monitor.test_stability_monitor import OneDimensional
from tests.reference.dense_sharpness import dense_hessian
from tests.signals.problems import tanh_regression


def follow(n: int, **settings: Any) -> tuple[list[Measurement], StabilityMonitor]:
    model, closure = tanh_regression(width=20)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    monitor = StabilityMonitor(model, optimizer, **settings)
    found = [monitor.step(step(optimizer, closure), closure) for _ in range(n)]
    return [reading for reading in found if reading is not None], monitor


def test_unless_asked_for_it_is_none_and_costs_nothing_and_else_its_products_are_charged() -> None:
    untouched, without = follow(20, every=5)
    plain, free = follow(20, every=5, sharpness=False)
    asked, paid = follow(20, every=5, sharpness=True)
    assert free.spent == without.spent and plain == untouched
    assert all(reading.sharpness is None for reading in plain)
    assert all(reading.sharpness is not None for reading in asked)
    assert [dataclasses.replace(reading, sharpness=None) for reading in asked] == plain
    # six products to start from, at least one for each reading that follows
    assert paid.spent >= free.spent + 1.3 * (6 + 3)


def test_a_stale_preconditioner_moves_the_ratio_past_the_edge_while_the_landscape_stays_as_it_is() -> None:
    module = OneDimensional()
    optimizer = torch.optim.Adam(module.parameters(), lr=0.1, betas=(0.9, 0.95), eps=1e-8)
    monitor = StabilityMonitor(module, optimizer, every=1, sharpness=True)
    readings = [monitor.step(step(optimizer, module.loss), module.loss) for _ in range(216)]
    ratios = [reading.sharpness_ratio for reading in readings if reading is not None]
    assert ratios[20] is not None and ratios[20] < 0.1
    assert ratios[-2] is not None and ratios[-2] <= 1
    assert ratios[-1] is not None and ratios[-1] > 1
    assert [reading.sharpness for reading in readings if reading is not None] == [pytest.approx(1.0)] * 216


def test_a_landscape_that_sharpens_moves_both() -> None:
    readings = []
    for curvature in (1.0, 3.0):
        module = OneDimensional()
        optimizer = torch.optim.Adam(module.parameters(), lr=0.1)
        monitor = StabilityMonitor(module, optimizer, every=1, sharpness=True)
        step(optimizer, module.loss)
        readings.append(monitor.step(1.0, lambda m=module, c=curvature: c * m.loss()))
    calm, sharp = readings
    assert calm is not None and sharp is not None
    assert sharp.sharpness == pytest.approx(3 * calm.sharpness) == pytest.approx(3.0)
    assert sharp.sharpness_ratio == pytest.approx(3 * calm.sharpness_ratio)


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.RMSprop])
def test_it_knows_no_decay_and_the_loss_as_the_optimizer_takes_it(kind: Any) -> None:
    for sign in (1.0, -1.0):
        model, closure = tanh_regression(width=5)
        params = list(model.parameters())
        optimizer = kind(params, lr=0.01, weight_decay=50.0, maximize=sign < 0)
        monitor = StabilityMonitor(model, optimizer, every=1, sharpness=True)
        reading = monitor.step(step(optimizer, closure), closure)
        assert reading is not None
        expected = torch.linalg.eigvalsh(sign * dense_hessian(closure, params))[-1]
        assert reading.sharpness == pytest.approx(float(expected), rel=0.005)


def test_with_an_overhead_it_comes_with_the_full_readings_alone_and_the_overhead_is_kept() -> None:
    found, monitor = follow(1000, overhead=0.3, steps=1000, sharpness=True)
    readings = [reading for reading in found if reading.sharpness_ratio is not None]
    with_it = [reading.step for reading in readings if reading.sharpness is not None]
    assert with_it == [reading.step for reading in readings if reading.gradient_curvature_ratio is not None]
    assert 3 <= len(with_it) < len(readings)
    assert 0.03 < monitor.overhead <= 0.3


def test_training_is_bit_for_bit_as_without_it() -> None:
    runs = []
    for asked in (False, True):
        model, closure = transformer()
        optimizer = InstrumentedAdamW(model.parameters(), lr=0.01, max_grad_norm=1.0)
        monitor = StabilityMonitor(model, optimizer, every=2, sharpness=asked)
        losses = []
        for _ in range(10):
            losses.append(step(optimizer, closure))
            monitor.step(losses[-1], closure)
        runs.append([*losses, *model.parameters(), torch.get_rng_state()])
    assert all(torch.equal(one, other) for one, other in zip(*runs, strict=True))


def test_a_monitor_that_forgoes_curvature_reads_it_no_more() -> None:
    model, closure = tanh_regression(width=5)
    optimizer = torch.optim.AdamW(model.parameters())
    monitor = StabilityMonitor(model, optimizer, every=1, sharpness=True)
    monitor.forgo_curvature()
    assert monitor.measure(step(optimizer, closure), closure).sharpness is None
