from __future__ import annotations

import math

import pytest
import torch

from stabletune.optim import InstrumentedAdamW
from stabletune.signals.gradient_norm import gradient_norm, held_gradient_norm


def test_it_is_the_norm_over_all_tensors() -> None:
    assert gradient_norm([torch.tensor([3.0]), torch.tensor([[0.0, 4.0]])]) == 5.0


def holding(*gradients: torch.Tensor) -> list[torch.nn.Parameter]:
    params = [torch.nn.Parameter(torch.zeros_like(gradient)) for gradient in gradients]
    for param, gradient in zip(params, gradients, strict=True):
        param.grad = gradient
    return params


def test_the_held_norm_is_that_of_all_parameters() -> None:
    optimizer = torch.optim.SGD(holding(torch.tensor([3.0]), torch.tensor([0.0, 4.0])))
    assert held_gradient_norm(optimizer) == 5.0
    optimizer.zero_grad(set_to_none=True)
    assert math.isnan(held_gradient_norm(optimizer))


@pytest.mark.parametrize(
    ("entry", "dtype"), [(3e4, torch.float16), (1e30, torch.float32), (1e-30, torch.float32), (1e-7, torch.float16)]
)
def test_a_norm_that_leaves_the_gradients_format_is_summed_in_float64(entry: float, dtype: torch.dtype) -> None:
    gradient = torch.full((64,), entry, dtype=dtype)
    optimizer = torch.optim.SGD(holding(gradient))
    assert held_gradient_norm(optimizer) == pytest.approx(8 * float(gradient[0]), rel=1e-6)


def test_a_gradient_that_is_not_finite_has_no_finite_norm() -> None:
    assert held_gradient_norm(torch.optim.SGD(holding(torch.tensor([1.0, math.inf])))) == math.inf
    assert math.isnan(held_gradient_norm(torch.optim.SGD(holding(torch.tensor([1.0, math.nan])))))


def test_of_clipped_gradients_it_is_the_norm_before() -> None:
    optimizer = InstrumentedAdamW(holding(torch.tensor([3.0, 4.0])), max_grad_norm=0.1)
    optimizer.step()
    assert held_gradient_norm(optimizer) == pytest.approx(5.0)
