from __future__ import annotations

import pytest
import torch

from stabletune.optim import InstrumentedAdamW
from stabletune.signals.v_hat_staleness import sum_second_moments, v_hat_decay, v_hat_staleness
from tests.signals.problems import tensor_with


def test_staleness_is_one_for_a_constant_gradient_and_counts_in_squares() -> None:
    g = torch.tensor([1.0, 2.0, -3.0], dtype=torch.float64)
    tensor = tensor_with(v=(1 - 0.99**10) * g.square())
    assert v_hat_staleness([tensor], [g]) == pytest.approx(1.0)
    assert v_hat_staleness([tensor, tensor], [g / 10, g / 10]) == pytest.approx(100.0)


def test_a_vanishing_gradient_has_no_staleness() -> None:
    assert v_hat_staleness([tensor_with()], [torch.zeros(3)]) is None


@pytest.mark.parametrize(("gradient", "expected"), [(0.0, 1.0), (1.0, 0.0)])
def test_decay_is_one_when_nothing_enters_and_zero_when_v_is_steady(gradient: float, expected: float) -> None:
    p = torch.nn.Parameter(torch.zeros(4, dtype=torch.float64))
    optimizer = torch.optim.AdamW([p], betas=(0.9, 0.98), lr=0.0)
    p.grad = torch.ones_like(p)
    optimizer.step()
    optimizer.state[p]["exp_avg_sq"].fill_(1.0)
    before = sum_second_moments(optimizer)
    p.grad = torch.full_like(p, gradient)
    optimizer.step()
    assert v_hat_decay(before, sum_second_moments(optimizer)) == pytest.approx(expected, abs=1e-9)


def test_pure_decay_is_one_for_groups_with_different_betas() -> None:
    one, other = (torch.nn.Parameter(torch.zeros(4, dtype=torch.float64)) for _ in range(2))
    optimizer = torch.optim.AdamW([{"params": [one], "betas": (0.9, 0.9)}, {"params": [other]}])
    for p, scale in ((one, 1.0), (other, 5.0)):
        p.grad = torch.full_like(p, scale)
    optimizer.step()
    before = sum_second_moments(optimizer)
    for p in (one, other):
        p.grad = torch.zeros_like(p)
    optimizer.step()
    assert v_hat_decay(before, sum_second_moments(optimizer)) == pytest.approx(1.0)


@pytest.mark.parametrize("settings", [{}, {"beta2_exponent": 0.8}, {"second_moment_reset": 2.0}], ids=str)
def test_pure_decay_is_one_however_fast_v_forgets(settings: dict[str, float]) -> None:
    p = torch.nn.Parameter(torch.zeros(4, dtype=torch.float64))
    optimizer = InstrumentedAdamW([p], lr=0.0, **settings)  # type: ignore[arg-type]
    p.grad = torch.ones_like(p)
    for _ in range(20):
        optimizer.step()
    for _ in range(5):
        before = sum_second_moments(optimizer)
        p.grad = torch.zeros_like(p)
        optimizer.step()
        assert v_hat_decay(before, sum_second_moments(optimizer)) == pytest.approx(1.0)


def test_a_skipped_step_gives_no_decay() -> None:
    p = torch.nn.Parameter(torch.zeros(4))
    optimizer = torch.optim.AdamW([p])
    p.grad = torch.ones_like(p)
    optimizer.step()
    before = sum_second_moments(optimizer)
    assert v_hat_decay(before, sum_second_moments(optimizer)) is None
