from __future__ import annotations

import pytest
import torch

from stabletune.errors import MeasurementError
from stabletune.optim import InstrumentedAdamW
from stabletune.signals.adam_state import check_optimizer, read_adam
from tests.signals.problems import train


def test_each_tensor_is_read_with_its_own_group_and_step_count() -> None:
    one, other = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([{"params": [one], "lr": 0.5}, {"params": [other], "betas": (0.8, 0.9), "eps": 1e-3}])
    train(optimizer, lambda: one.square().sum(), 3)
    train(optimizer, lambda: one.square().sum() + other.square().sum(), 4)
    first, second = read_adam(optimizer)
    assert (first.n_steps, first.lr, first.beta1) == (7, 0.5, 0.9)
    assert (second.n_steps, second.beta2, second.eps) == (4, 0.9, 1e-3)
    torch.testing.assert_close(second.v_hat, optimizer.state[other]["exp_avg_sq"] / (1 - 0.9**4))


def test_frozen_and_never_stepped_parameters_are_left_out() -> None:
    used, unused = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))
    frozen = torch.nn.Parameter(torch.ones(2), requires_grad=False)
    optimizer = torch.optim.Adam([used, unused, frozen])
    train(optimizer, lambda: used.square().sum(), 1)
    assert [tensor.param is used for tensor in read_adam(optimizer)] == [True]


def test_decay_is_coupled_for_adam_only() -> None:
    p = torch.nn.Parameter(torch.ones(2))
    for optimizer, expected in (
        (torch.optim.Adam([p], weight_decay=0.1), 0.1),
        (torch.optim.AdamW([p], weight_decay=0.1), 0.0),
        (InstrumentedAdamW([p], weight_decay=0.1), 0.0),
    ):
        train(optimizer, lambda: p.square().sum(), 1)
        assert read_adam(optimizer)[0].l2 == expected


def test_amsgrad_divides_by_the_running_maximum() -> None:
    p = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([p], amsgrad=True, betas=(0.9, 0.5))
    train(optimizer, lambda: p.square().sum(), 1)
    train(optimizer, lambda: 1e-3 * p.square().sum(), 5)
    tensor = read_adam(optimizer)[0]
    assert (tensor.denominator_moment > tensor.second_moment).all()


def test_the_clip_factor_of_the_last_step_is_read() -> None:
    p = torch.nn.Parameter(torch.ones(2))
    optimizer = InstrumentedAdamW([p], max_grad_norm=0.1)
    train(optimizer, lambda: p.square().sum(), 1)
    assert read_adam(optimizer)[0].clip_factor == pytest.approx(0.1 / 8**0.5, rel=1e-4)


@pytest.mark.parametrize("name", ["SGD", "NAdam", "RMSprop"])
def test_other_optimizers_are_refused_naming_the_supported_ones(name: str) -> None:
    optimizer = getattr(torch.optim, name)([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    with pytest.raises(MeasurementError, match=f"torch.optim.AdamW .* but got {name}"):
        check_optimizer(optimizer)
