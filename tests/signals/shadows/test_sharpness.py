from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from stabletune.signals.curvature.ritz_basis import RitzBasis
from stabletune.signals.optimizer_state.reading import read_tensors
from stabletune.signals.shadows.second_moments import ShadowSecondMoments
from stabletune.signals.shadows.sharpness import bound_sharpness, weight_stretch
from stabletune.signals.sharpness_ratio import SharpnessTracker
from tests.reference.dense_sharpness import dense_hessian, dense_spectrum
from tests.signals.problems import operator_of, tanh_regression, tensor_with, train

DOUBLE = torch.float64


@dataclasses.dataclass
class Dense:
    """W^½ H W^½ for a matrix H."""

    hessian: Tensor
    weights: Tensor
    gradient: Tensor

    @property
    def root(self) -> Tensor:
        return self.weights.sqrt()

    @property
    def scaled_gradient(self) -> Tensor:
        return self.root * self.gradient

    def product(self, vector: Tensor) -> Tensor:
        return self.root * (self.hessian @ (self.root * vector))

    def top(self) -> float:
        return float(2 * dense_spectrum(self.hessian, self.weights)[-1])


def random_problem(seed: int, size: int = 40, dtype: torch.dtype = DOUBLE) -> tuple[Dense, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    factor = torch.randn(size, size, generator=generator, dtype=dtype)
    negative = 0.1 * torch.randn(size, generator=generator, dtype=dtype).square().diag()
    hessian = factor @ torch.logspace(0, -3, size, dtype=dtype).diag() @ factor.T - negative
    weights, other = (10 ** torch.randn(size, generator=generator, dtype=dtype) for _ in range(2))
    return Dense(hessian, weights, torch.randn(size, generator=generator, dtype=dtype)), other


def measured_on(problem: Dense) -> RitzBasis:
    sharpness = SharpnessTracker().measure(problem, None)
    assert sharpness is not None
    return sharpness.basis


def basis_of(matrix: Tensor, *directions: Tensor) -> RitzBasis:
    basis = RitzBasis(lambda vector: matrix @ vector, directions[0])
    assert all(basis.extend(direction) for direction in directions)
    return basis


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_the_bound_is_never_above_the_dense_eigenvalue(share: float, dtype: torch.dtype) -> None:
    for seed in range(60):
        problem, other = random_problem(seed, dtype=dtype)
        weights = problem.weights ** (1 - share) * other**share
        found = bound_sharpness(measured_on(problem), problem.weights / weights)
        assert found is not None and found.estimate is not None
        exact = dataclasses.replace(problem, weights=weights).top()
        assert found.lower_bound <= exact * (1 + 1e-5)
        assert found.lower_bound <= found.estimate


def test_the_bound_is_the_ritz_value_for_the_same_weights_or_a_multiple() -> None:
    problem, _ = random_problem(0)
    measured = measured_on(problem)
    top = np.linalg.eigvalsh(measured.projected)[-1]
    for factor in (1.0, 4.0, 0.01):
        found = bound_sharpness(measured, torch.full_like(problem.weights, 1 / factor))
        assert found is not None
        assert found.lower_bound == pytest.approx(factor * top, rel=1e-9)


def test_the_estimate_is_a_bound_too_where_no_eigenvalue_is_negative() -> None:
    gains = []
    for seed in range(60):
        problem, other = random_problem(seed)
        problem = dataclasses.replace(problem, hessian=problem.hessian @ problem.hessian.T)
        weights = problem.weights**0.8 * other**0.2
        found = bound_sharpness(measured_on(problem), problem.weights / weights)
        exact = dataclasses.replace(problem, weights=weights).top()
        assert found is not None and found.estimate is not None
        assert found.estimate <= exact * (1 + 1e-9)
        gains.append((exact - found.estimate) / (exact - found.lower_bound))
    assert sorted(gains)[30] < 0.7


def test_the_estimate_may_pass_the_value_where_the_negative_side_is_large() -> None:
    matrix = torch.tensor([[0.5, 2.0], [2.0, -3.0]], dtype=DOUBLE)
    q = torch.tensor([1.0, 0.0], dtype=DOUBLE)
    found = bound_sharpness(basis_of(matrix, q), torch.ones(2, dtype=DOUBLE))
    assert found is not None
    assert (found.lower_bound, found.estimate) == (0.5, 0.5 + 4.0 / 0.5)
    assert found.estimate is not None and found.estimate > float(torch.linalg.eigvalsh(matrix)[-1])


def test_coordinates_without_weight_are_left_out_of_the_bound() -> None:
    for seed in range(20):
        problem, other = random_problem(seed)
        problem.weights[:7] = 0.0
        other[3:9] = 0.0
        stretch = torch.where(problem.weights > 0, problem.weights / other, 0.0)
        problem.gradient[7:9] = 0.0
        exact = dataclasses.replace(problem, weights=other).top()
        start = torch.where(other > 0, problem.scaled_gradient, 0.0)
        basis = RitzBasis(problem.product, start)
        basis.extend(start)
        basis.extend(torch.ones_like(start))
        found = bound_sharpness(basis, stretch)
        assert found is not None  # the second vector has a share where W' = 0 alone; the first one serves
        expected = basis.projected[0, 0] / float((basis.vectors()[0].square() * stretch).nansum())
        assert found.lower_bound == pytest.approx(expected)
        assert found.lower_bound <= exact * (1 + 1e-9)


def test_without_a_usable_direction_there_is_no_bound() -> None:
    q = torch.tensor([1.0, 0.0])
    measured = basis_of(torch.eye(2), q)
    assert bound_sharpness(measured, torch.tensor([float("inf"), 1.0])) is None
    assert bound_sharpness(measured, torch.tensor([0.0, 1.0])) is None


def test_directions_that_the_other_weights_make_dependent_are_dropped() -> None:
    problem, _ = random_problem(1)
    measured = measured_on(problem)
    stretch = torch.full_like(problem.weights, 1e-14)
    stretch[0] = 1.0
    found = bound_sharpness(measured, stretch)
    exact = dataclasses.replace(problem, weights=problem.weights / stretch).top()
    assert found is not None
    assert 0 < found.lower_bound <= exact * (1 + 1e-6)


def test_the_stretch_is_the_ratio_of_weights_with_nothing_for_nothing() -> None:
    used = tensor_with(v=torch.tensor([4.0, 4.0, 0.0]), eps=0.0)
    other = tensor_with(v=torch.tensor([1.0, 0.0, 0.0]), eps=0.0)
    assert weight_stretch([used], [other], torch.empty(0)).tolist() == [0.5, float("inf"), 0.0]


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_on_a_trained_net_it_bounds_the_dense_value_for_the_other_beta2(decay: float) -> None:
    model, closure = tanh_regression(width=10)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=decay)
    shadows = ShadowSecondMoments(optimizer, (0.9, 0.99, 0.999))
    tracker = SharpnessTracker(is_thorough=True)
    for step in range(1, 41):
        train(optimizer, closure, 1)
        if step % 10:
            continue
        tensors = read_tensors(optimizer)
        operator = operator_of(optimizer, closure)
        measured = tracker.measure(operator, None)
        assert measured is not None
        hessian = dense_hessian(closure, list(model.parameters()))
        hessian += decay * torch.eye(len(hessian), dtype=DOUBLE)
        for beta2 in shadows.beta2:
            view = shadows.view(beta2, tensors)
            weights = torch.cat([_weights(t.v_hat.double(), t.n_steps) for t in view])
            exact = float(dense_spectrum(hessian, weights)[-1])
            found = bound_sharpness(measured.basis, weight_stretch(tensors, view, torch.empty(0)))
            assert found is not None and found.estimate is not None
            assert 0.8 * exact <= found.lower_bound <= exact * (1 + 1e-4)
            assert found.estimate == pytest.approx(exact, rel=0.03)


def _weights(v_hat: Tensor, n_steps: int) -> Tensor:
    return (0.01 * 0.1 / (1.9 * (1 - 0.9**n_steps)) / (v_hat.sqrt() + 1e-8)).reshape(-1)
