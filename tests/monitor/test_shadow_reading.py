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
from tests.reference.dense_sharpness import dense_hessian, dense_spectrum, weights
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
    plain, _ = follow(tanh_regression(), 20)
    bounded, free = follow(tanh_regression(), 20, shadow_beta2=[0.9, 0.99])
    measured, paid = follow(tanh_regression(), 20, shadow_beta2=[0.9, 0.99], shadow_exact=True)
    assert paid.spent >= free.spent + 2 * 2 * len(measured)
    assert [dataclasses.replace(r, shadow_sharpness_ratios=None) for r in bounded] == plain
    for reading, other in zip(measured, bounded, strict=True):
        assert reading.shadow_sharpness_ratios is not None and other.shadow_sharpness_ratios is not None
        assert [found.beta2 for found in reading.shadow_sharpness_ratios] == [0.9, 0.99]
        for found, bound in zip(reading.shadow_sharpness_ratios, other.shadow_sharpness_ratios, strict=True):
            assert bound == dataclasses.replace(found, exact=None)
            assert found.lower_bound is not None and found.exact is not None
            assert found.lower_bound <= found.exact * 1.005


def test_following_is_charged_for_each_step_and_value_beside_the_readings() -> None:
    def following(steps: int, values: tuple[float, ...]) -> float:
        _, without = follow(tanh_regression(), steps)
        _, shadowed = follow(tanh_regression(), steps, shadow_beta2=values)
        return shadowed.spent - without.spent

    once = following(20, (0.9, 0.99))
    assert once > 0
    assert following(40, (0.9, 0.99)) == pytest.approx(2 * once)
    assert following(20, ALL) == pytest.approx(2 * once)


def test_a_monitor_that_forgoes_curvature_follows_no_more() -> None:
    model, closure = narrow()
    optimizer = torch.optim.AdamW(model.parameters())
    monitor = StabilityMonitor(model, optimizer, every=5, shadow_beta2=[0.9])
    for _ in range(5):
        monitor.step(step(optimizer, closure), closure)
    spent = monitor.spent
    monitor.forgo_curvature()
    assert monitor.spent == spent
    assert not optimizer._optimizer_step_post_hooks
    reading = monitor.measure(step(optimizer, closure))
    assert reading.shadow_sharpness_ratios is None


def test_the_shadow_of_the_runs_own_beta2_is_the_run_itself() -> None:
    readings, _ = follow(tanh_regression(), 20, shadow_beta2=[0.999], shadow_exact=True)
    for reading in readings:
        assert reading.shadow_sharpness_ratios is not None
        (found,) = reading.shadow_sharpness_ratios
        # S goes beyond what its products prove by up to its tolerance
        assert found.lower_bound == pytest.approx(reading.sharpness_ratio, rel=0.015)
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


def narrow() -> Problem:
    return tanh_regression(width=20)


@pytest.mark.parametrize(
    ("problem", "lr", "used", "other"),
    [
        *((narrow, 0.01, used, other) for used in (0.999, 0.95) for other in ALL if other != used),
        *((network, 0.003, used, other) for used in (0.999, 0.95) for other in ALL if other != used),
        (transformer, 0.001, 0.999, 0.95),
        (transformer, 0.001, 0.999, 0.99),
        (transformer, 0.001, 0.95, 0.999),
    ],
)
def test_from_a_fresh_start_a_real_run_agrees_within_a_tenth_for_20_steps(
    problem: Callable[[], Problem], lr: float, used: float, other: float
) -> None:
    exact, estimates = deviations(problem, lr, used, other, n_before=0)
    assert len(exact) >= 15
    assert max(exact) < 0.1 and max(estimates) < 0.1


@pytest.mark.parametrize(
    ("problem", "lr", "used", "other"),
    [
        *((narrow, 0.001, used, other) for used in (0.999, 0.95) for other in ALL if other != used),
        (network, 0.0003, 0.999, 0.95),
        (network, 0.0003, 0.95, 0.999),
        (transformer, 0.0001, 0.999, 0.99),
        (transformer, 0.0001, 0.95, 0.99),
    ],
)
def test_from_a_checkpoint_away_from_the_edge_a_real_run_agrees_within_a_tenth_for_20_steps(
    problem: Callable[[], Problem], lr: float, used: float, other: float
) -> None:
    exact, estimates = deviations(problem, lr, used, other, n_before=200)
    assert len(exact) >= 15
    assert max(exact) < 0.1 and max(estimates) < 0.1


def test_near_the_edge_a_changed_beta2_parts_the_trajectories_after_the_first_steps() -> None:
    exact, _ = deviations(narrow, 0.01, 0.999, 0.95, n_before=200)
    assert max(exact[:3]) < 0.05
    assert max(exact) > 0.1


def test_exact_values_agree_with_the_dense_twin() -> None:
    model, closure = narrow()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, betas=(0.9, 0.999))
    twin = copy.deepcopy(model)
    of_twin = torch.optim.AdamW(twin.parameters(), lr=0.01, betas=(0.9, 0.9))
    monitor = StabilityMonitor(model, optimizer, every=10, shadow_beta2=[0.9], shadow_exact=True)
    for _ in range(30):
        optimizer.zero_grad()
        loss = closure()
        loss.backward()
        for p, q in zip(model.parameters(), twin.parameters(), strict=True):
            q.data.copy_(p.data)
            q.grad = None if p.grad is None else p.grad.clone()
        of_twin.step()
        optimizer.step()
        reading = monitor.step(loss, closure)
        if reading is None:
            continue
        assert reading.shadow_sharpness_ratios is not None
        hessian = dense_hessian(closure, list(model.parameters()))
        expected = float(dense_spectrum(hessian, weights(of_twin))[-1])
        assert reading.shadow_sharpness_ratios[0].exact == pytest.approx(expected, rel=0.01)


def test_settings_that_make_no_sense_are_refused() -> None:
    model, _ = narrow()
    optimizer = InstrumentedAdamW(model.parameters(), second_moment_clip=5000.0)
    with pytest.raises(ValueError, match="shadow_exact needs shadow_beta2, but got none"):
        StabilityMonitor(model, optimizer, shadow_exact=True)
    with pytest.raises(ValueError, match=r"0 < beta2 < 1, but got \[1.0\]"):
        StabilityMonitor(model, torch.optim.AdamW(model.parameters()), shadow_beta2=[1.0])
    with pytest.raises(MeasurementError, match="second_moment_clip must be None"):
        StabilityMonitor(model, optimizer, shadow_beta2=[0.9])
