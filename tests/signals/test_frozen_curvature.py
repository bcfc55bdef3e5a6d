from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import scipy.linalg
import torch

from stabletune.optim import InstrumentedAdamW
from stabletune.signals.curvature.ritz_basis import Memory
from stabletune.signals.frozen_curvature import Foresight, FrozenCurvature, fastest_growth
from stabletune.signals.optimizer_state.reading import read_tensors
from stabletune.signals.sharpness_ratio import SharpnessTracker
from tests.reference.dense_sharpness import dense_hessian, dense_spectrum, weights
from tests.signals.problems import Quadratic, operator_of, tanh_regression, train

OPTIMIZERS: list[Callable[[Any], torch.optim.Optimizer]] = [
    lambda p: torch.optim.AdamW(p, lr=0.02),
    lambda p: torch.optim.RAdam(p, lr=0.02),
    lambda p: torch.optim.RMSprop(p, lr=0.02, momentum=0.5),
    lambda p: torch.optim.Adagrad(p, lr=0.02),
]


def measured(optimizer: torch.optim.Optimizer, closure: Callable[[], torch.Tensor]) -> Foresight:
    tracker = SharpnessTracker(is_thorough=True)
    assert tracker.measure(operator_of(optimizer, closure), None) is not None
    assert tracker.curvature is not None
    return Foresight(tracker.curvature, tuple(tensor.param for tensor in read_tensors(optimizer)))


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_right_after_a_measurement_it_is_what_was_measured(make: Callable[[Any], torch.optim.Optimizer]) -> None:
    model, closure = tanh_regression(width=8)
    optimizer = make(model.parameters())
    train(optimizer, closure, 60)
    frozen = measured(optimizer, closure)
    assert frozen.ratio_now(read_tensors(optimizer)) == pytest.approx(frozen.curvature.values[0], rel=1e-4)


def test_it_follows_the_learning_rate_exactly() -> None:
    model, closure = tanh_regression(width=8)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02, weight_decay=0.0)
    train(optimizer, closure, 60)
    frozen = measured(optimizer, closure)
    optimizer.param_groups[0]["lr"] = 0.05
    assert frozen.ratio_now(read_tensors(optimizer)) == pytest.approx(2.5 * frozen.curvature.values[0], rel=1e-4)


def test_with_the_hessian_unchanged_it_is_a_lower_bound_and_close_to_the_dense_value() -> None:
    hessian = torch.diag(torch.tensor([5.0, 2.0, 1.0, 0.2], dtype=torch.float64))
    model = Quadratic(hessian, torch.ones(4, dtype=torch.float64))
    optimizer = torch.optim.AdamW([model.theta], lr=0.01, betas=(0.9, 0.95), weight_decay=0.0)
    train(optimizer, model.loss, 30)
    frozen = measured(optimizer, model.loss)
    for _ in range(10):
        train(optimizer, model.loss, 3)
        exact = float(dense_spectrum(dense_hessian(model.loss, [model.theta]), weights(optimizer))[-1])
        now = frozen.ratio_now(read_tensors(optimizer))
        assert now is not None and now <= exact * (1 + 1e-6)
    assert now == pytest.approx(exact, rel=0.05)


def spread(hessian: torch.Tensor, roots: torch.Tensor) -> torch.Tensor:
    return roots[:, None] * hessian * roots


def test_under_other_weights_it_gives_the_ritz_pairs_of_the_span_with_the_hessian_of_then() -> None:
    generator = torch.Generator().manual_seed(0)
    factor = torch.randn(12, 12, generator=generator, dtype=torch.float64)
    hessian = factor @ factor.T
    before, after = (torch.rand(12, generator=generator, dtype=torch.float64) + 0.1 for _ in range(2))
    values, vectors = torch.linalg.eigh(spread(hessian, before))
    kept = vectors[:, -3:].flip(1).T
    pairs = FrozenCurvature.of(Memory(tuple(values[-3:].flip(0).tolist()), kept), before).under(after)
    assert pairs is not None
    found = torch.tensor(pairs.values, dtype=torch.float64)
    expected = scipy.linalg.eigh(
        (kept * before @ hessian @ (kept * before).T).numpy(), (kept * before / after**2 @ (kept * before).T).numpy()
    )[0]
    torch.testing.assert_close(found, torch.tensor(expected[::-1].copy()))
    torch.testing.assert_close(pairs.vectors @ pairs.vectors.T, torch.eye(3, dtype=torch.float64))
    quotients = torch.diagonal(pairs.vectors @ spread(hessian, after) @ pairs.vectors.T)
    torch.testing.assert_close(quotients, found)


def test_where_a_coordinate_of_theirs_has_stopped_nothing_is_foreseen() -> None:
    vectors = torch.eye(4, dtype=torch.float64)[:2]
    frozen = FrozenCurvature.of(Memory((2.0, 1.0), vectors), torch.ones(4, dtype=torch.float64))
    assert frozen.under(torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=torch.float64)) is not None
    assert frozen.under(torch.tensor([1.0, 0.0, 1.0, 1.0], dtype=torch.float64)) is None


def test_a_group_that_does_not_move_is_left_out_and_one_that_has_stopped_gives_no_answer() -> None:
    model, closure = tanh_regression(width=6)
    still, *moving = model.parameters()
    optimizer = torch.optim.AdamW([{"params": [still], "lr": 0.0}, {"params": moving}], lr=0.02, weight_decay=0.0)
    train(optimizer, closure, 20)
    frozen = measured(optimizer, closure)
    assert frozen.ratio_now(read_tensors(optimizer)) == pytest.approx(frozen.curvature.values[0], rel=1e-4)
    optimizer.param_groups[1]["lr"] = 0.0
    assert frozen.ratio_now(read_tensors(optimizer)) is None


def test_a_learning_rate_of_zero_is_no_edge_and_a_lost_parameter_no_answer() -> None:
    model, closure = tanh_regression(width=3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    train(optimizer, closure, 5)
    frozen = measured(optimizer, closure)
    optimizer.param_groups[0]["lr"] = 0.0
    assert frozen.ratio_now(read_tensors(optimizer)) is None
    assert frozen.ratio_now(read_tensors(optimizer)[1:]) is None


@pytest.mark.parametrize("n_steps", [20, 3000])
@pytest.mark.parametrize("settings", [{"beta2_exponent": 0.8}, {"second_moment_reset": 2.0}], ids=str)
def test_a_schedule_and_a_reset_say_how_fast_v_hat_may_fall(settings: dict[str, float], n_steps: int) -> None:
    model = Quadratic(torch.eye(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64))
    optimizer = InstrumentedAdamW([model.theta], lr=0.0, betas=(0.9, 0.99), eps=0.0, **settings)  # type: ignore[arg-type]
    train(optimizer, model.loss, n_steps)
    for _ in range(4):
        model.theta.grad = torch.zeros(2, dtype=torch.float64)
        optimizer.step()
    (before,) = read_tensors(optimizer)
    rate, root = fastest_growth([before]), before.v_hat_root.clone()
    optimizer.step()
    grown = math.log(float(root[0] / read_tensors(optimizer)[0].v_hat_root[0]))
    assert grown > 0.005 and rate == pytest.approx(grown, rel=0.05)


@pytest.mark.parametrize("n_steps", [1, 20, 3000])
def test_nothing_grows_faster_than_where_no_gradient_enters(n_steps: int) -> None:
    model = Quadratic(torch.eye(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64))
    optimizer = torch.optim.AdamW([model.theta], lr=0.0, betas=(0.9, 0.99), eps=0.0)
    train(optimizer, model.loss, n_steps)
    (before,) = read_tensors(optimizer)
    rate, root = fastest_growth([before]), before.v_hat_root.clone()
    model.theta.grad = torch.zeros(2, dtype=torch.float64)
    optimizer.step()
    (after,) = read_tensors(optimizer)
    assert rate == pytest.approx(math.log(float(root[0] / after.v_hat_root[0])))


def test_a_sum_of_squares_never_lets_s_grow() -> None:
    model = Quadratic(torch.eye(2), torch.ones(2))
    optimizer = torch.optim.Adagrad([model.theta])
    train(optimizer, model.loss, 3)
    assert fastest_growth(read_tensors(optimizer)) == 0.0
