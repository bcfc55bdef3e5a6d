from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from stabletune.signals.curvature.ritz import Estimate, estimate_top
from stabletune.signals.curvature.ritz_basis import Memory, RitzBasis


def symmetric(values: list[float], seed: int = 0) -> tuple[Tensor, Tensor]:
    """A matrix with these eigenvalues and its eigenvectors as columns."""
    generator = torch.Generator().manual_seed(seed)
    vectors, _ = torch.linalg.qr(torch.randn(len(values), len(values), generator=generator, dtype=torch.float64))
    return vectors @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ vectors.T, vectors


def start(size: int, seed: int = 7) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def basis_of(matrix: Tensor, *directions: Tensor, memory: Memory | None = None) -> RitzBasis:
    basis = RitzBasis(lambda x: matrix @ x, directions[0], memory)
    for direction in directions:
        basis.extend(direction)
    return basis


def estimate(basis: RitzBasis, other_share: float = 0.0) -> Estimate:
    return estimate_top(basis, n_pairs=3, other_share=other_share)


def lanczos(matrix: Tensor, direction: Tensor, n_products: int) -> Estimate:
    basis = basis_of(matrix, direction)
    for _ in range(n_products - 1):
        basis.extend(estimate(basis).next_direction())
    return estimate(basis)


def dense_model(matrix: Tensor, basis: RitzBasis, memory: Memory | None, other_share: float) -> float:
    """The model's top eigenvalue, with every vector written out and orthonormalized one by one."""
    values, ritz = torch.linalg.eigh(basis.vectors() @ matrix @ basis.vectors().T)
    values, ritz = values.flip(0), basis.vectors().T @ ritz.flip(1)
    top = float(values[0])
    candidates = []
    if memory is not None:
        scale = min(max(top / memory.values[0], 0.5), 2.0)
        candidates = [(v, min(x * scale, abs(top)), 0.5) for x, v in zip(memory.values, memory.vectors, strict=True)]
    for j in range(min(3, len(values))):
        residual = matrix @ ritz[:, j] - values[j] * ritz[:, j]
        candidates.append((residual, other_share * max(top, 0.0), max(1e-3 * abs(top), 0.05 * float(residual.norm()))))
    frame, diagonal = [*ritz.T], [float(value) for value in values]
    for vector, value, least in candidates:
        rest = vector.clone()
        for _ in range(2):
            for unit in frame:
                rest -= (unit @ rest) * unit
        if float(rest.norm()) > least:
            frame.append(rest / rest.norm())
            diagonal.append(value)
    n, together = len(values), torch.stack(frame)
    model = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    model[:n, n:] = together[:n] @ matrix @ together[n:].T
    model[n:, :n] = model[:n, n:].T
    return float(torch.linalg.eigvalsh(model)[-1])


def test_growing_along_the_next_direction_finds_the_largest_eigenvalue_and_its_vector() -> None:
    matrix, vectors = symmetric([2.0, 1.5, *[0.01 * i for i in range(60)]])
    found = lanczos(matrix, start(62), 20)
    assert found.value == pytest.approx(2.0, rel=1e-5)
    assert abs(float(vectors[:, 0] @ found.vectors()[0])) == pytest.approx(1.0, abs=1e-5)
    assert found.correction < 1e-5


def test_it_is_the_largest_algebraic_one() -> None:
    matrix, _ = symmetric([1.0, -5.0, *[0.01 * i for i in range(40)]])
    assert lanczos(matrix, start(42), 25).value == pytest.approx(1.0, rel=1e-5)
    negative, _ = symmetric([-0.5, -2.0, -3.0, -4.0])
    assert lanczos(negative, start(4), 4).value == pytest.approx(-0.5)


@pytest.mark.parametrize("n_products", [1, 2, 3, 5])
@pytest.mark.parametrize("other_share", [0.0, 0.3])
@pytest.mark.parametrize("remembers", [False, True])
def test_the_estimate_is_that_of_the_model_written_out(n_products: int, other_share: float, remembers: bool) -> None:
    matrix, vectors = symmetric([2.0 - 0.05 * i for i in range(36)])
    memory = None
    if remembers:
        turned, _ = torch.linalg.qr(vectors[:, :3] + 0.03 * torch.stack([start(36, s) for s in (1, 2, 3)]).T)
        memory = Memory((1.9, 1.8, 1.7), turned.T.contiguous())
    basis = basis_of(matrix, start(36) if memory is None else memory.vectors[0], memory=memory)
    for _ in range(n_products - 1):
        basis.extend(estimate(basis, other_share).next_direction())
    found = estimate(basis, other_share)
    assert found.value == pytest.approx(dense_model(matrix, basis, memory, other_share), rel=1e-9)


def test_one_product_with_the_memory_is_better_by_an_order_than_its_rayleigh_quotient() -> None:
    before, old = symmetric([1.0, 0.7, 0.5, *[0.01 * i for i in range(40)]])
    change = torch.stack([start(43, seed) for seed in range(43)])
    matrix = before + 0.004 * (change + change.T)
    exact = float(torch.linalg.eigvalsh(matrix)[-1])
    memory = Memory((1.0, 0.7, 0.5), old[:, :3].T.contiguous())
    found = estimate(basis_of(matrix, old[:, 0], memory=memory), 0.2)
    assert found.proven < exact
    assert abs(found.value - exact) < 0.1 * (exact - found.proven)


def test_the_proven_value_is_a_lower_bound_and_its_residual_holds_an_eigenvalue() -> None:
    matrix, _ = symmetric([1.0 - 0.03 * i for i in range(30)])
    exact = torch.linalg.eigvalsh(matrix)
    for n_products in range(1, 12):
        found = lanczos(matrix, start(30), n_products)
        assert found.proven <= float(exact[-1]) + 1e-12
        assert float((exact - found.proven).abs().min()) <= found.residual * abs(found.proven) + 1e-12


def test_a_coupled_rival_makes_the_correction_large_and_is_where_to_look_next() -> None:
    _, vectors = symmetric([1.0] * 20)
    top, rival = vectors[:, 0], vectors[:, 1]
    matrix = (
        torch.outer(top, top)
        + 1.2 * torch.outer(rival, rival)
        + 0.1 * (torch.outer(top, rival) + torch.outer(rival, top))
    )
    found = estimate(basis_of(matrix, top, memory=Memory((1.0, 0.95), vectors[:, :2].T.contiguous())))
    assert found.correction > 0.05
    direction = found.next_direction()
    assert abs(float(direction @ rival)) == pytest.approx(float(direction.norm()))


def test_the_images_are_the_products_that_were_made() -> None:
    matrix, _ = symmetric([3.0, 2.0, 1.0, 0.5])
    basis = basis_of(matrix, start(4), start(4, 1), start(4, 2))
    torch.testing.assert_close(basis.images(), basis.vectors() @ matrix)
    np.testing.assert_allclose(basis.projected, basis.vectors() @ matrix @ basis.vectors().T, atol=1e-12)


def test_a_product_that_is_a_little_asymmetric_from_rounding_still_converges() -> None:
    matrix, _ = symmetric([2.8, 0.05, 0.04, *[0.01 * (-1) ** i for i in range(40)]])
    noise = torch.stack([start(43, seed) for seed in range(43)])
    found = lanczos(matrix + 1e-4 * (noise - noise.T), start(43), 12)
    assert found.value == pytest.approx(2.8, rel=1e-3)
    assert found.correction < 1e-3


def test_a_known_image_costs_no_product() -> None:
    matrix, _ = symmetric([3.0, 1.0])
    calls: list[int] = []

    def product(x: Tensor) -> Tensor:
        calls.append(1)
        return matrix @ x

    direction = start(2)
    basis = RitzBasis(product, direction)
    basis.extend(direction, matrix @ direction)
    assert not calls
    basis.extend(estimate(basis).next_direction())
    assert len(calls) == 1
    assert estimate(basis).value == pytest.approx(3.0)


def test_the_zero_operator_has_zero_and_no_error() -> None:
    found = estimate(basis_of(torch.zeros(5, 5, dtype=torch.float64), start(5)), 0.3)
    assert (found.value, found.residual, found.correction) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("bad", [0.0, float("nan"), float("inf")])
def test_unusable_directions_are_not_taken(bad: float) -> None:
    basis = RitzBasis(lambda x: x, start(3))
    assert not basis.extend(torch.full((3,), bad, dtype=torch.float64))
    assert len(basis) == 0


def test_what_the_basis_holds_already_is_not_taken_again() -> None:
    matrix, _ = symmetric([3.0, 1.0, 0.5])
    basis = basis_of(matrix, start(3), start(3, 1))
    assert not basis.extend(basis.vectors()[0] - 2 * basis.vectors()[1])


def test_a_product_that_is_not_finite_is_noticed() -> None:
    basis = RitzBasis(lambda x: x * float("nan"), start(3))
    basis.extend(start(3))
    assert not basis.is_finite


def test_an_estimate_of_exactly_zero_above_a_negative_proof_is_no_error() -> None:
    found = Estimate(-1.0, 1.0, (0.0,), np.zeros((1, 1)), np.zeros((1, 1)), (torch.zeros(1, 2),))
    assert found.correction == float("inf")
