from __future__ import annotations

import pytest
import torch
from torch import nn

from stabletune.monitor.reading import Probe
from stabletune.monitor.work import CountedOnce, WorkCounter, python_work
from tests.signals.problems import train


def assert_counts(action: object, n_calls: int, flops: int, n_bytes: int) -> None:
    counter = WorkCounter(per_call=1000.0)
    with counter:
        action()  # type: ignore[operator]
    assert counter.nanoseconds == pytest.approx(1000.0 * n_calls + 0.009 * flops + 0.025 * n_bytes)


def test_calls_flops_and_bytes_are_added_up_and_views_are_free() -> None:
    a, b = torch.ones(8, 16), torch.ones(16, 4)
    assert_counts(lambda: a @ b, 1, 2 * 8 * 16 * 4, 4 * (8 * 16 + 16 * 4 + 8 * 4))
    assert_counts(lambda: a.T.contiguous().view(-1), 1, 0, 2 * 4 * 8 * 16)
    assert_counts(lambda: a.T[3:, :2], 0, 0, 0)


def test_off_the_cpu_calls_cost_the_same_and_what_they_do_far_less() -> None:
    a, b = torch.ones(8, 16, device="meta"), torch.ones(16, 4, device="meta")
    counter = WorkCounter(per_call=1000.0)
    with counter:
        a @ b
    flops, n_bytes = 2 * 8 * 16 * 4, 4 * (8 * 16 + 16 * 4 + 8 * 4)
    assert counter.nanoseconds == pytest.approx(1000.0 + 1e-5 * flops + 5e-4 * n_bytes)


def test_python_is_counted_for_each_accelerated_tensor_and_for_no_other() -> None:
    tensors = [torch.ones(2), torch.ones(2, device="meta"), torch.ones(2, device="meta")]
    assert python_work(tensors) == 2 * 60_000.0
    light = CountedOnce(lambda: float(torch.ones(3).sum()), assumed=0.5, uncounted=python_work(tensors))
    light(gradient_work=1e6)
    assert light.cost > 0.12


def test_counting_changes_no_number() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)), torch.randn(5, 4)
    plain = torch.autograd.grad(model(x).square().sum(), list(model.parameters()))
    with WorkCounter():
        counted = torch.autograd.grad(model(x).square().sum(), list(model.parameters()))
    assert all(torch.equal(one, other) for one, other in zip(plain, counted, strict=True))


def test_a_product_costs_about_two_gradients_on_a_large_hidden_layer_and_less_where_the_first_layer_is_largest() -> (
    None
):
    def cost_of_a_product(inputs: int, width: int) -> float:
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(inputs, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1)
        )
        x = torch.randn(512, inputs)
        optimizer = torch.optim.AdamW(model.parameters())
        train(optimizer, lambda: model(x).square().mean(), 2)
        probe = Probe(model, optimizer)
        probe.read(lambda: model(x).square().mean())
        return probe.product_cost

    assert cost_of_a_product(10, 512) == pytest.approx(2.2, abs=0.3)
    assert cost_of_a_product(2048, 128) < cost_of_a_product(10, 512) - 0.1


def test_a_light_action_is_counted_once_against_the_gradient() -> None:
    x = torch.ones(1000)
    calls: list[int] = []

    def action() -> float:
        calls.append(1)
        return float(x.sum())

    counted = CountedOnce(action, 0.25)
    assert counted(None) == 1000.0
    assert counted.cost == 0.25
    for _ in range(2):
        assert counted(1e6) == 1000.0
    assert counted.cost == pytest.approx((2 * 4000.0 + 0.08 * (4 * 1001 + 4)) / 1e6, rel=0.2)
    assert len(calls) == 3
