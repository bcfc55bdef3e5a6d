from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from stabletune.optim import InstrumentedAdamW
from stabletune.signals.curvature.preconditioner import stability_weights, weighed_alike
from stabletune.signals.optimizer_state.adaptive_tensor import AdaptiveTensor
from tests.reference.dense_sharpness import dense_hessian, l2_of, weights
from tests.signals.problems import operator_of, tanh_regression, tensor_with, train


def weights_of(*tensors: AdaptiveTensor) -> Tensor:
    return stability_weights(tensors, tensors[0].second_moment)


def groups_of(kind: Any, params: list[Tensor], changes: dict[str, Any]) -> Any:
    return kind([{"params": params[:2], "lr": 0.1, "eps": 1e-3, **changes}, {"params": params[2:]}], lr=0.02)


def dense_operator(closure: Callable[[], Tensor], optimizer: torch.optim.Optimizer, clip: Any) -> Tensor:
    params = [p for group in optimizer.param_groups for p in group["params"]]
    hessian = dense_hessian(closure, params)
    root = weights(optimizer, clip).sqrt()
    return 0.5 * root[:, None] * (hessian + torch.diag(l2_of(optimizer))) * root[None, :]


@pytest.mark.parametrize(
    ("make", "l2"),
    [
        (lambda p: torch.optim.AdamW(p, lr=0.02), 0.0),
        (lambda p: torch.optim.Adam(p, lr=0.02, weight_decay=0.3), 0.3),
        (lambda p: torch.optim.Adam(p, lr=0.02, amsgrad=True, betas=(0.8, 0.9)), 0.0),
        (lambda p: torch.optim.AdamW([{"params": p[:1], "lr": 0.1, "eps": 1e-3}, {"params": p[1:]}]), 0.0),
        (lambda p: InstrumentedAdamW(p, lr=0.02, max_grad_norm=0.1, update_clip=0.5), 0.0),
        (lambda p: InstrumentedAdamW(p, lr=0.02, max_grad_norm=0.1, update_clip=0.5, weight_decay=20.0), 0.0),
        (lambda p: InstrumentedAdamW(p, lr=0.02, second_moment_reset=1.5, second_moment_clip=2.0), 0.0),
        (lambda p: InstrumentedAdamW(p, lr=0.02, beta2_exponent=0.8, amsgrad=True), 0.0),
        (lambda p: groups_of(torch.optim.Adam, p, {"betas": (0.5, 0.9), "weight_decay": 0.3}), 0.3),
        (lambda p: groups_of(torch.optim.NAdam, p, {"betas": (0.5, 0.9), "weight_decay": 0.3}), 0.3),
        (lambda p: groups_of(torch.optim.RAdam, p, {"betas": (0.5, 0.9), "weight_decay": 0.3}), 0.3),
        (lambda p: groups_of(torch.optim.RMSprop, p, {"momentum": 0.8, "centered": True, "weight_decay": 0.3}), 0.3),
        (lambda p: groups_of(torch.optim.Adagrad, p, {"lr_decay": 0.1, "weight_decay": 0.3}), 0.3),
    ],
)
def test_the_operator_agrees_with_its_dense_twin(make: Any, l2: float) -> None:
    model, closure = tanh_regression(width=5)
    optimizer = make(list(model.parameters()))
    train(optimizer, closure, 20)
    clip = getattr(optimizer, "clip_factor", lambda p: 1.0)
    assert float(l2_of(optimizer).max()) == l2
    expected = dense_operator(closure, optimizer, clip)
    operator = operator_of(optimizer, closure)
    found = torch.stack([operator.product(unit) for unit in torch.eye(len(expected))]).double()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_it_is_half_the_preconditioned_clipped_step() -> None:
    tensor = tensor_with(v=torch.tensor([4.0, 9.0]), correction=1.0, eps=1.0, clip_factor=0.5)
    torch.testing.assert_close(weights_of(tensor), 0.025 / torch.tensor([3.0, 4.0]))


def test_decoupled_decay_takes_its_share_of_the_way_to_the_edge() -> None:
    tensor = tensor_with(v=torch.ones(1), correction=1.0, eps=0.0, shrinkage=0.5)
    assert float(weights_of(tensor)) == pytest.approx(0.1 / 1.5)


def test_without_a_preconditioner_every_coordinate_weighs_the_same() -> None:
    tensor = tensor_with(v=torch.tensor([0.0, 9.0]), is_preconditioned=False)
    torch.testing.assert_close(weights_of(tensor), torch.full((2,), 0.05))


def test_where_no_step_is_defined_the_weight_is_zero() -> None:
    assert weights_of(tensor_with(v=torch.zeros(2), eps=0.0)).tolist() == [0.0, 0.0]


def test_what_is_weighed_alike_is_weighed_at_once_and_the_rest_by_itself() -> None:
    tensors = [tensor_with(v=torch.full((2,), float(n)), eps=1e-3 if n > 2 else 1.0) for n in range(5)]
    expected = torch.cat([weights_of(tensor) for tensor in tensors])
    torch.testing.assert_close(weights_of(*tensors), expected)
    assert [len(group) for _, group in weighed_alike(tensors)] == [3, 2]
    inverses = [
        alike.inverse_weights([t.denominator_moment for t in group], expected)
        for alike, group in weighed_alike(tensors)
    ]
    torch.testing.assert_close(torch.cat(inverses), 1 / expected)
