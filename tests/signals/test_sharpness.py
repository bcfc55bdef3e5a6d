from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from stabletune.signals.curvature.hvp import LossGraph
from stabletune.signals.sharpness import RawSharpnessTracker
from tests.reference.dense_sharpness import dense_hessian
from tests.signals.problems import Problem, Quadratic, tanh_regression, train


def measure(
    tracker: RawSharpnessTracker, model: torch.nn.Module, closure: Callable[[], Tensor], *, sign: float = 1.0
) -> tuple[float | None, int]:
    graph = LossGraph(closure, list(model.parameters()), sign=sign)
    with torch.no_grad():
        return tracker.measure(graph)


def saddle() -> Quadratic:
    curvature = torch.diag(torch.tensor([3.0, -6.0, 0.5], dtype=torch.float64))
    return Quadratic(curvature, torch.tensor([1.0, 0.1, 1.0], dtype=torch.float64))


def test_it_is_the_largest_algebraic_curvature_of_a_quadratic() -> None:
    model = saddle()
    found, n_products = measure(RawSharpnessTracker(), model, model.loss)
    assert found == pytest.approx(3.0)
    assert n_products == 3


def test_of_a_loss_that_is_maximized_it_is_that_of_the_negative() -> None:
    model = saddle()
    assert measure(RawSharpnessTracker(), model, model.loss, sign=-1.0)[0] == pytest.approx(6.0)


def test_a_loss_without_curvature_has_none() -> None:
    model = torch.nn.Linear(3, 1)
    assert measure(RawSharpnessTracker(), model, lambda: model.weight.sum())[0] == 0.0


def classification() -> Problem:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 12), torch.nn.Tanh(), torch.nn.Linear(12, 3))
    x = torch.randn(60, 4)
    classes = (x[:, 0] * x[:, 1] > 0).long() + (x[:, 2] > 1).long()
    return model, lambda: torch.nn.functional.cross_entropy(model(x), classes)


@pytest.mark.parametrize(("is_thorough", "within"), [(True, 0.01), (False, 0.015)])
def test_it_agrees_with_the_dense_eigenvalue_along_a_run(is_thorough: bool, within: float) -> None:
    model, closure = classification()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02, betas=(0.9, 0.999))
    tracker = RawSharpnessTracker(is_thorough=is_thorough)
    errors, values = [], []
    for _ in range(40):
        train(optimizer, closure, 10)
        found, _ = measure(tracker, model, closure)
        if found is not None:
            exact = float(torch.linalg.eigvalsh(dense_hessian(closure, list(model.parameters())))[-1])
            values.append(exact)
            errors.append(abs(found / exact - 1))
    assert len(errors) >= 38
    assert max(values) > 5 * min(values)
    assert max(errors) <= within


@pytest.mark.parametrize("scale", [1e-30, 1e-25, 1e-3, 1e20, 1e30])
def test_it_is_proportional_to_the_loss_at_any_size_that_float32_can_say(scale: float) -> None:
    model, closure = tanh_regression(width=20)
    plain, _ = measure(RawSharpnessTracker(is_thorough=True), model, closure)
    scaled, _ = measure(RawSharpnessTracker(is_thorough=True), model, lambda: scale * closure())
    assert plain is not None and scaled is not None
    assert scaled / scale == pytest.approx(plain, rel=0.005)


def test_a_size_that_leaps_out_of_range_is_not_told_and_then_followed_from_nothing() -> None:
    model, closure = tanh_regression(width=20)
    tracker = RawSharpnessTracker()
    found = [measure(tracker, model, lambda s=s: s * closure())[0] for s in (1.0, 1e20, 1e20, 1.0, 1.0)]
    assert found[1] is None and found[3] is None
    assert found[2] is not None
    assert found[0] == pytest.approx(found[4], rel=0.01) == pytest.approx(found[2] / 1e20, rel=0.01)


@pytest.mark.parametrize("power", [1e30, 1e38])
def test_a_curvature_that_is_not_finite_is_not_told(power: float) -> None:
    model = Quadratic(power * torch.eye(2), torch.full((2,), 1e-3))
    assert measure(RawSharpnessTracker(), model, lambda: model.loss() * power)[0] is None


def test_the_largest_numbers_of_float64_are_told_and_what_lies_beyond_is_not() -> None:
    model = Quadratic(1e308 * torch.eye(2, dtype=torch.float64), torch.full((2,), 1e-9, dtype=torch.float64))
    assert measure(RawSharpnessTracker(), model, model.loss)[0] == pytest.approx(1e308)
    assert measure(RawSharpnessTracker(), model, lambda: 1e3 * model.loss())[0] is None
