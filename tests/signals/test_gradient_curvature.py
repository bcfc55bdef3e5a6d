from __future__ import annotations

import pytest
import torch

from stabletune.signals.gradient_curvature import alignment, gradient_curvature
from tests.reference.dense_sharpness import dense_gradient, dense_hessian, dense_spectrum, weights
from tests.signals.problems import operator_of, tanh_regression, train


def test_both_forms_agree_with_the_dense_formulas_from_one_product() -> None:
    model, closure = tanh_regression(width=6)
    model.double()
    x = torch.linspace(-3, 3, 40, dtype=torch.float64)[:, None]

    def loss() -> torch.Tensor:
        return (model(x) - x.sin()).square().mean()

    del closure
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02, betas=(0.9, 0.98))
    train(optimizer, loss, 50)
    params = list(model.parameters())
    hessian, g, w = dense_hessian(loss, params), dense_gradient(loss, params), weights(optimizer)
    operator = operator_of(optimizer, loss)
    found = gradient_curvature(operator)
    assert found is not None
    scaled = w.sqrt() * g
    matrix = w.sqrt()[:, None] * hessian * w.sqrt()[None, :]
    assert found.ratio == pytest.approx(float(0.5 * scaled @ matrix @ scaled / (scaled @ scaled)))
    assert found.paper_ratio == pytest.approx(float(0.5 * g @ (w * (hessian @ g)) / (g @ g)))
    assert found.ratio <= float(dense_spectrum(hessian, w)[-1])
    assert operator.n_products == 1


def test_a_vanishing_gradient_has_no_direction() -> None:
    p = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([p], lr=1e-3)
    train(optimizer, lambda: p.square().sum(), 1)
    assert gradient_curvature(operator_of(optimizer, lambda: 0 * p.square().sum())) is None


def test_alignment_is_the_absolute_cosine() -> None:
    assert alignment(torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 1.0])) == pytest.approx(0.5**0.5)
    assert alignment(torch.zeros(2), torch.ones(2)) is None
