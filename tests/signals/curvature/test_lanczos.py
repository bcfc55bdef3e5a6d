from __future__ import annotations

import pytest
import torch
from torch import Tensor

from stabletune.signals.curvature.lanczos import RitzPairs, Stopping, top_ritz_pairs

TIGHT = Stopping(1e-3, 2, 20)


def symmetric(values: list[float], seed: int = 0) -> tuple[Tensor, Tensor]:
    """A matrix with these eigenvalues and its eigenvectors as columns."""
    generator = torch.Generator().manual_seed(seed)
    vectors, _ = torch.linalg.qr(torch.randn(len(values), len(values), generator=generator, dtype=torch.float64))
    return vectors @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ vectors.T, vectors


def solve(matrix: Tensor, starts: list[Tensor], stopping: Stopping = TIGHT) -> RitzPairs:
    found = top_ritz_pairs(lambda x: matrix @ x, starts, stopping=stopping)
    assert found is not None
    return found


def start(size: int) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


def test_the_largest_eigenvalue_and_its_vector_are_found() -> None:
    matrix, vectors = symmetric([2.0, 1.5, *[0.01 * i for i in range(60)]])
    found = solve(matrix, [start(62)])
    assert found.value == pytest.approx(2.0, rel=1e-5)
    assert abs(float(vectors[:, 0] @ found.vector)) == pytest.approx(1.0, abs=1e-5)
    assert found.has_converged


def test_a_negative_eigenvalue_of_larger_size_is_not_taken_for_it() -> None:
    matrix, _ = symmetric([1.0, -5.0, *[0.01 * i for i in range(40)]])
    assert solve(matrix, [start(42)]).value == pytest.approx(1.0, rel=1e-5)


def test_a_negative_definite_operator_has_a_negative_largest_eigenvalue() -> None:
    matrix, _ = symmetric([-0.5, -2.0, -3.0, -4.0])
    assert solve(matrix, [start(4)]).value == pytest.approx(-0.5)


def test_the_residual_bounds_the_error_at_any_stop() -> None:
    matrix, _ = symmetric([1.0 - 0.03 * i for i in range(30)])
    for products in range(2, 12):
        found = solve(matrix, [start(30)], Stopping(1e-9, 2, products))
        exact = torch.linalg.eigvalsh(matrix)
        assert float((exact - found.value).abs().min()) <= found.residual * abs(found.value) + 1e-12
        assert not found.has_converged


def test_from_an_exact_vector_it_stops_at_once_when_the_gap_is_wide() -> None:
    matrix, vectors = symmetric([2.0, *[0.01 * i for i in range(40)]])
    calls: list[int] = []

    def product(x: Tensor) -> Tensor:
        calls.append(1)
        return matrix @ x

    found = top_ritz_pairs(product, [vectors[:, 0], start(41)], stopping=Stopping(0.03, 2, 8))
    assert found is not None and found.has_converged
    assert len(calls) == 2


def test_after_a_crossing_the_second_pair_gives_the_old_vector_away() -> None:
    matrix, vectors = symmetric([1.3, 1.0, *[0.01 * i for i in range(40)]])
    gradient = 0.5 * vectors[:, 0] + start(42) / 42**0.5
    found = solve(matrix, [vectors[:, 1], gradient], Stopping(0.03, 2, 8))
    assert found.value == pytest.approx(1.3, rel=1e-2)


def test_a_known_image_costs_no_product() -> None:
    matrix, _ = symmetric([3.0, 1.0])
    direction = torch.tensor([1.0, 0.3], dtype=torch.float64)
    calls: list[int] = []

    def product(x: Tensor) -> Tensor:
        calls.append(1)
        return matrix @ x

    found = top_ritz_pairs(product, [], stopping=Stopping(1e-6, 2, 5), known=(direction, matrix @ direction))
    assert found is not None and found.value == pytest.approx(3.0)
    assert len(calls) == 1


def test_the_zero_operator_has_zero_and_no_error() -> None:
    found = solve(torch.zeros(5, 5, dtype=torch.float64), [start(5)])
    assert (found.value, found.residual, found.has_converged) == (0.0, 0.0, True)


@pytest.mark.parametrize("bad", [0.0, float("nan"), float("inf")])
def test_unusable_starts_give_nothing(bad: float) -> None:
    assert top_ritz_pairs(lambda x: x, [torch.full((3,), bad)], stopping=Stopping(0.1, 2, 5)) is None


def test_a_product_that_is_not_finite_gives_nothing() -> None:
    assert top_ritz_pairs(lambda x: x * torch.nan, [torch.ones(3)], stopping=Stopping(0.1, 2, 5)) is None
