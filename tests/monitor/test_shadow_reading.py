from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stabletune.errors import MeasurementError
from stabletune.monitor import StabilityMonitor
from stabletune.optim import InstrumentedAdamW
from stabletune.records import Measurement
from tests.reference.dense_sharpness import dense_hessian, dense_sharpness, dense_spectrum
from tests.signals.problems import Problem, tanh_regression

ALL = (0.9, 0.95, 0.99, 0.999)


def transformer() -> Problem:
    torch.manual_seed(0)
    block = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
    model = nn.Sequential(nn.Embedding(11, 16), block, nn.Linear(16, 11))
    tokens = torch.randint(0, 11, (16, 10))
    tokens[:, 1:] = (3 * tokens[:, :-1] + 1) % 11
    return model, lambda: nn.functional.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())


def network() -> Problem:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 1))
    x = torch.randn(64, 8)
    y = (x[:, :1] * x[:, 1:2]).sin()
    return model, lambda: (model(x) - y).square().mean()


def step(optimizer: torch.optim.Optimizer, closure: Callable[[], Tensor]) -> Tensor:
    optimizer.zero_grad()
    loss = closure()
    loss.backward()
    optimizer.step()
    return loss


def follow(problem: Problem, steps: int, **settings: Any) -> tuple[list[Measurement], StabilityMonitor]:
    model, closure = problem
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    monitor = StabilityMonitor(model, optimizer, every=5, **settings)
    found = [monitor.step(step(optimizer, closure), closure) for _ in range(steps)]
    return [reading for reading in found if reading is not None], monitor


def test_bounds_cost_no_product_and_exact_values_are_charged() -> None:
    plain, without = follow(tanh_regression(), 20)
    bounded, free = follow(tanh_regression(), 20, shadow_beta2=[0.9, 0.99])
    measured, paid = follow(tanh_regression(), 20, shadow_beta2=[0.9, 0.99], shadow_exact=True)
    assert free.spent == without.spent
    assert paid.spent >= without.spent + 2 * 2 * 2 * len(measured)
    assert [dataclasses.replace(r, shadow_sharpness_ratios=None) for r in bounded] == plain
    for reading, other in zip(measured, bounded, strict=True):
        assert reading.shadow_sharpness_ratios is not None and other.shadow_sharpness_ratios is not None
        assert [found.beta2 for found in reading.shadow_sharpness_ratios] == [0.9, 0.99]
        for found, bound in zip(reading.shadow_sharpness_ratios, other.shadow_sharpness_ratios, strict=True):
            assert bound == dataclasses.replace(found, exact=None)
            assert found.lower_bound is not None and found.exact is not None
            assert found.lower_bound <= found.exact * 1.005


def test_the_shadow_of_the_runs_own_beta2_is_the_run_itself() -> None:
    readings, _ = follow(tanh_regression(), 20, shadow_beta2=[0.999], shadow_exact=True)
    for reading in readings:
        assert reading.shadow_sharpness_ratios is not None
        (found,) = reading.shadow_sharpness_ratios
        assert found.lower_bound == pytest.approx(reading.sharpness_ratio, rel=1e-4)
        assert found.exact == pytest.approx(reading.sharpness_ratio, rel=0.01)


def test_training_is_bit_for_bit_as_without_shadows() -> None:
    runs = []
    for settings in ({}, {"shadow_beta2": ALL, "shadow_exact": True}):
        model, closure = transformer()
        optimizer = InstrumentedAdamW(model.parameters(), lr=0.01, max_grad_norm=1.0)
        monitor = StabilityMonitor(model, optimizer, every=2, **settings)
        losses = []
        for _ in range(10):
            losses.append(step(optimizer, closure))
            monitor.step(losses[-1], closure)
        runs.append([*losses, *model.parameters(), torch.get_rng_state()])
    assert all(torch.equal(one, other) for one, other in zip(*runs, strict=True))


def deviations(
    problem: Callable[[], Problem], lr: float, used: float, other: float, *, n_before: int
) -> tuple[list[float], list[float]]:
    """Exact value and estimate of a shadow over the real run's S, less 1, at each of 20 steps."""
    model, closure = problem()
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, used))
    for _ in range(n_before):
        step(optimizer, closure)
    real, real_closure = problem()
    real.load_state_dict(copy.deepcopy(model.state_dict()))
    real_optimizer = torch.optim.AdamW(real.parameters(), lr=lr, betas=(0.9, other))
    if n_before:
        real_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        real_optimizer.param_groups[0]["betas"] = (0.9, other)
    monitor = StabilityMonitor(model, optimizer, every=1, shadow_beta2=[other], shadow_exact=True)
    of_real = StabilityMonitor(real, real_optimizer, every=1)
    exact, estimates = [], []
    for _ in range(20):
        expected = of_real.step(step(real_optimizer, real_closure), real_closure)
        reading = monitor.step(step(optimizer, closure), closure)
        assert reading is not None and reading.shadow_sharpness_ratios is not None
        assert expected is not None and expected.sharpness_ratio is not None
        (found,) = reading.shadow_sharpness_ratios
        if found.exact is None or not expected.has_converged:
            continue
        assert found.estimate is not None
        exact.append(abs(found.exact / expected.sharpness_ratio - 1))
        estimates.append(abs(found.estimate / expected.sharpness_ratio - 1))
    return exact, estimates
