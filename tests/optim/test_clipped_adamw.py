from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from stabletune.optim import InstrumentedAdamW
from tests.reference.mitigated_adamw import MitigatedAdamW
from tests.reference.mitigated_adamw import Tensor as NaiveTensor


def stable_adamw_twin(
    p: Tensor,
    grads: list[Tensor],
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    decay: float,
    d: float,
    amsgrad: bool,
) -> tuple[Tensor, list[float]]:
    """The formula of arXiv:2304.13013 written out in float64, one tensor."""
    p = p.clone()
    m, v, top = torch.zeros_like(p), torch.zeros_like(p), torch.zeros_like(p)
    factors = []
    for t, g in enumerate(grads, start=1):
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g * g
        top = torch.maximum(top, v)
        v_hat = (top if amsgrad else v) / (1 - betas[1] ** t)
        rms = (g * g / v_hat.clamp_min(eps**2)).mean().sqrt()
        c = 1 / max(1.0, float(rms) / d)
        factors.append(c)
        p = p - c * lr * decay * p - c * lr * (m / (1 - betas[0] ** t)) / (v_hat.sqrt() + eps)
    return p, factors


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("d", [0.3, 1.0])
def test_update_clip_is_stable_adamw_as_written(amsgrad: bool, d: float) -> None:
    generator = torch.Generator().manual_seed(0)
    starts = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((4, 3), (5,))]
    scales = [1.0, 1.0, 10.0, 0.1, 100.0, 1.0, 0.0]
    grads = [[s * torch.randn(p.shape, generator=generator, dtype=torch.float64) for s in scales] for p in starts]
    params = [torch.nn.Parameter(p.clone()) for p in starts]
    optimizer = InstrumentedAdamW(
        params, lr=0.1, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.2, amsgrad=amsgrad, update_clip=d
    )
    seen: list[list[float]] = [[], []]
    for step in range(len(scales)):
        for p, series, factors in zip(params, grads, seen, strict=True):
            p.grad = series[step].clone()
            del factors
        optimizer.step()
        for p, factors in zip(params, seen, strict=True):
            factors.append(optimizer.clip_factor(p))
    for start, series, p, factors in zip(starts, grads, params, seen, strict=True):
        expected, expected_factors = stable_adamw_twin(
            start, series, lr=0.1, betas=(0.8, 0.95), eps=1e-6, decay=0.2, d=d, amsgrad=amsgrad
        )
        torch.testing.assert_close(p.detach(), expected)
        assert factors == pytest.approx(expected_factors)
        assert min(factors) < 0.9


ALONE: list[dict[str, Any]] = [
    {"second_moment_clip": 3.0},
    {"second_moment_reset": 4.0},
    {"beta2_exponent": 0.8},
    {"beta2_exponent": 0.3},
]
TOGETHER = [
    {"second_moment_reset": 4.0, "beta2_exponent": 0.6},
    {"second_moment_reset": 4.0, "second_moment_clip": 3.0, "update_clip": 0.7},
    {"second_moment_reset": 2.0, "beta2_exponent": 0.8, "second_moment_clip": 3.0, "update_clip": 0.7},
]


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("settings", [*ALONE, *TOGETHER], ids=lambda settings: ",".join(settings))
def test_every_mitigation_is_its_formula_coordinate_by_coordinate(settings: dict[str, Any], amsgrad: bool) -> None:
    draw = torch.Generator().manual_seed(0)
    common: dict[str, Any] = {"lr": 0.1, "betas": (0.8, 0.97), "eps": 1e-6, "weight_decay": 0.2, "amsgrad": amsgrad}
    params = [torch.nn.Parameter(torch.randn(n, generator=draw, dtype=torch.float64)) for n in (5, 3)]
    twins = [NaiveTensor(p.tolist()) for p in params]
    optimizer, twin = InstrumentedAdamW(params, **common, **settings), MitigatedAdamW(**common, **settings)
    for scale in [1.0] * 15 + [0.05] * 12 + [3.0] * 2 + [0.2] * 8 + [1e-3] * 6 + [1.0] * 5:
        for p, naive in zip(params, twins, strict=True):
            p.grad = scale * torch.randn(p.shape, generator=draw, dtype=torch.float64)
            twin.step(naive, p.grad.tolist())
        optimizer.step()
    for p, naive in zip(params, twins, strict=True):
        torch.testing.assert_close(p.detach(), torch.tensor(naive.values, dtype=torch.float64))
    if "second_moment_reset" in settings:
        assert all(naive.age < naive.t for naive in twins)


def test_a_zero_gradient_with_zero_eps_stays_finite() -> None:
    p = torch.nn.Parameter(torch.ones(3))
    optimizer = InstrumentedAdamW([p], update_clip=1.0)
    p.grad = torch.zeros(3)
    optimizer.step()
    assert torch.isfinite(p).all()
    assert optimizer.clip_factor(p) == 1.0


def test_groups_may_clip_differently() -> None:
    one, other = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3))
    optimizer = InstrumentedAdamW([{"params": [one], "update_clip": 0.1}, {"params": [other]}], weight_decay=0.0)
    for p in (one, other):
        p.grad = torch.ones(3)
    optimizer.step()
    assert optimizer.clip_factor(one) == pytest.approx(0.1)
    assert optimizer.clip_factor(other) == 1.0
    assert float(1 - one[0].detach()) == pytest.approx(0.1 * float(1 - other[0].detach()), rel=1e-3)


def test_update_clip_damps_the_step_after_a_burst() -> None:
    moved = []
    for limit in (None, 1.0):
        p = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
        optimizer = InstrumentedAdamW([p], lr=0.01, betas=(0.0, 0.999), weight_decay=0.0, update_clip=limit)
        for scale in [1e-3] * 200 + [1.0]:
            before = p.detach().clone()
            p.grad = torch.full((1,), scale, dtype=torch.float64)
            optimizer.step()
        moved.append(float((p.detach() - before).abs()))
    assert moved[0] > 0.1
    assert moved[1] == pytest.approx(0.01, rel=1e-6)


def test_complex_parameters_are_refused_when_clipping() -> None:
    p = torch.nn.Parameter(torch.ones(2, dtype=torch.complex64))
    optimizer = InstrumentedAdamW([p], update_clip=1.0)
    p.grad = torch.ones(2, dtype=torch.complex64)
    with pytest.raises(ValueError, match="real, dense gradients, but got complex"):
        optimizer.step()
