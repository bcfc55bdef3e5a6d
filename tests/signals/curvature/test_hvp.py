from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from stabletune.errors import MeasurementError
from stabletune.signals.curvature.hvp import LossGraph
from tests.reference.dense_sharpness import dense_hessian


def attention() -> tuple[nn.Module, Callable[[], Tensor]]:
    model = nn.TransformerEncoderLayer(4, 2, 4, dropout=0.0, batch_first=True)
    x = torch.randn(2, 3, 4)
    return model, lambda: (model(x) ** 3).mean()


def batch_norm() -> tuple[nn.Module, Callable[[], Tensor]]:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 1))
    x = torch.randn(8, 3)
    return model, lambda: model(x).square().mean()


def embedding() -> tuple[nn.Module, Callable[[], Tensor]]:
    model = nn.Sequential(nn.Embedding(6, 3), nn.LayerNorm(3), nn.Linear(3, 6))
    model[2].weight = model[0].weight
    tokens = torch.tensor([0, 1, 2, 1])
    return model, lambda: nn.functional.cross_entropy(model(tokens), torch.tensor([1, 2, 1, 0]))


def convolution() -> tuple[nn.Module, Callable[[], Tensor]]:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(2, 2))
    x = torch.randn(4, 1, 4, 4)
    return model, lambda: model(x).square().mean()


def recurrent() -> tuple[nn.Module, Callable[[], Tensor]]:
    model = nn.LSTM(2, 3, batch_first=True)
    x = torch.randn(3, 4, 2)
    return model, lambda: model(x)[0].square().mean()


def physics_informed() -> tuple[nn.Module, Callable[[], Tensor]]:
    model = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1))
    x = torch.linspace(0, 1, 7)[:, None].requires_grad_()

    def loss() -> Tensor:
        (slope,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
        (bend,) = torch.autograd.grad(slope.sum(), x, create_graph=True)
        return (bend + model(x) + x.sin()).square().mean()

    return model, loss


PROBLEMS = [attention, batch_norm, embedding, convolution, recurrent, physics_informed]


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_products_agree_with_the_dense_hessian(problem: Callable[[], object], dtype: torch.dtype) -> None:
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        torch.manual_seed(0)
        model, closure = problem()  # type: ignore[misc]
        params = list(model.parameters())
        hessian = dense_hessian(closure, params)
        graph = LossGraph(closure, params, has_recurrent_layers=True)
        vector = torch.randn(hessian.shape[0])
        expected = hessian @ vector.double()
        tolerance = 1e-10 if dtype == torch.float64 else 1e-4
        assert float((graph.product(vector).double() - expected).norm()) <= tolerance * float(expected.norm())
    finally:
        torch.set_default_dtype(default)


def test_dropout_uses_one_mask_for_all_products() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 20), nn.Tanh(), nn.Dropout(0.5), nn.Linear(20, 1))
    graph = LossGraph(lambda: model(torch.ones(5, 3)).square().mean(), list(model.parameters()))
    vector = torch.ones(sum(p.numel() for p in model.parameters()))
    assert torch.equal(graph.product(vector), graph.product(vector))


def test_unused_parameters_are_dropped_and_linear_losses_have_no_curvature() -> None:
    used, unused = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(3))
    graph = LossGraph(lambda: used.sum(), [used, unused])
    assert len(graph.params) == 1
    assert torch.equal(graph.product(torch.ones(2)), torch.zeros(2))


def test_a_model_under_autocast_is_measured_in_float32() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    x = torch.randn(5, 3)

    def closure() -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return model(x).float().square().mean()

    exact = dense_hessian(lambda: model(x).square().mean(), list(model.parameters()))
    vector = torch.randn(exact.shape[0])
    found = LossGraph(closure, list(model.parameters())).product(vector)
    assert found.dtype == torch.float32
    assert float((found.double() - exact @ vector.double()).norm() / (exact @ vector.double()).norm()) < 0.05


def test_grad_mode_does_not_matter_to_the_caller() -> None:
    p = torch.nn.Parameter(torch.ones(2))
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            graph = LossGraph(lambda: p.square().sum(), [p])
            assert torch.equal(graph.product(torch.ones(2)), torch.full((2,), 2.0))
            assert not torch.is_grad_enabled()


def test_a_compiled_model_is_refused_in_clear_words() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    compiled = torch.compile(model, backend="aot_eager")
    with pytest.raises(MeasurementError, match=r"differentiable twice, but .*uncompiled model"):
        LossGraph(lambda: compiled(torch.ones(2, 3)).square().mean(), list(model.parameters())).product(torch.ones(21))


@pytest.mark.parametrize(
    ("loss", "words"),
    [(1.0, "but got float"), (torch.ones(2), r"but got shape \(2,\)"), (torch.ones(()), "without a gradient")],
)
def test_what_is_no_differentiable_scalar_is_refused(loss: object, words: str) -> None:
    with pytest.raises(MeasurementError, match=words):
        LossGraph(lambda: loss, [torch.nn.Parameter(torch.ones(1))])  # type: ignore[arg-type, return-value]
