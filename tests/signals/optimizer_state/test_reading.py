from __future__ import annotations

import copy

import pytest
import torch

from stabletune.errors import MeasurementError
from stabletune.optim import InstrumentedAdamW
from stabletune.signals.optimizer_state.reading import RULES, check_optimizer, read_tensors
from tests.signals.problems import train


def test_each_tensor_is_read_with_its_own_group_and_step_count() -> None:
    one, other = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([{"params": [one], "lr": 0.5}, {"params": [other], "betas": (0.8, 0.9), "eps": 1e-3}])
    train(optimizer, lambda: one.square().sum(), 3)
    train(optimizer, lambda: one.square().sum() + other.square().sum(), 4)
    first, second = read_tensors(optimizer)
    assert (first.n_steps, first.step_size) == (7, pytest.approx(0.5 / 19 / (1 - 0.9**7)))
    assert (second.n_steps, second.beta2, second.eps) == (4, 0.9, 1e-3)
    torch.testing.assert_close(second.v_hat, optimizer.state[other]["exp_avg_sq"] / (1 - 0.9**4))


@pytest.mark.parametrize("kind", RULES)
def test_frozen_and_never_stepped_parameters_are_left_out(kind: type[torch.optim.Optimizer]) -> None:
    used, unused = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))
    frozen = torch.nn.Parameter(torch.ones(2), requires_grad=False)
    optimizer = kind([used, unused, frozen], lr=0.1)
    train(optimizer, lambda: used.square().sum(), 1)
    assert [tensor.param is used for tensor in read_tensors(optimizer)] == [True]


@pytest.mark.parametrize("kind", RULES)
def test_a_loaded_state_reads_as_the_one_it_was_saved_from(kind: type[torch.optim.Optimizer]) -> None:
    p = torch.nn.Parameter(torch.ones(2))
    optimizer = kind([p], lr=0.1)
    train(optimizer, lambda: p.square().sum(), 7)
    other = kind([p], lr=0.2)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    (ours,), (theirs,) = read_tensors(other), read_tensors(optimizer)
    assert (ours.step_size, ours.n_steps, ours.eps) == (theirs.step_size, theirs.n_steps, theirs.eps)
    assert torch.equal(ours.v_hat, theirs.v_hat)


@pytest.mark.parametrize("name", ["Adam", "NAdam", "RAdam"])
def test_decay_is_coupled_unless_the_group_or_the_class_decouples_it(name: str) -> None:
    p = torch.nn.Parameter(torch.ones(2))
    kind = getattr(torch.optim, name)
    for optimizer, expected in (
        (kind([p], lr=0.5, weight_decay=0.1), (0.1, 0.0)),
        (kind([p], lr=0.5, weight_decay=0.1, decoupled_weight_decay=True), (0.0, 0.05)),
        (torch.optim.AdamW([p], lr=0.5, weight_decay=0.1), (0.0, 0.05)),
        (InstrumentedAdamW([p], lr=0.5, weight_decay=0.1), (0.0, 0.05)),
    ):
        train(optimizer, lambda: p.square().sum(), 1)
        tensor = read_tensors(optimizer)[0]
        assert (tensor.l2, tensor.shrinkage) == expected


def test_update_clip_shrinks_the_decoupled_decay_too_and_max_grad_norm_does_not() -> None:
    p = torch.nn.Parameter(torch.ones(2))
    optimizer = InstrumentedAdamW([p], lr=0.5, weight_decay=0.1, update_clip=0.25, max_grad_norm=0.1)
    train(optimizer, lambda: p.square().sum(), 1)
    tensor = read_tensors(optimizer)[0]
    assert tensor.shrinkage == pytest.approx(0.25 * 0.05, rel=1e-4)
    assert tensor.clip_factor == pytest.approx(0.25 * 0.1 / 8**0.5, rel=1e-4)


def test_amsgrad_divides_by_the_running_maximum() -> None:
    p = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([p], amsgrad=True, betas=(0.9, 0.5))
    train(optimizer, lambda: p.square().sum(), 1)
    train(optimizer, lambda: 1e-3 * p.square().sum(), 5)
    tensor = read_tensors(optimizer)[0]
    assert (tensor.denominator_moment > tensor.second_moment).all()


def test_the_clip_factor_of_the_last_step_is_read() -> None:
    p = torch.nn.Parameter(torch.ones(2))
    optimizer = InstrumentedAdamW([p], max_grad_norm=0.1)
    train(optimizer, lambda: p.square().sum(), 1)
    assert read_tensors(optimizer)[0].clip_factor == pytest.approx(0.1 / 8**0.5, rel=1e-4)


@pytest.mark.parametrize("kind", [torch.optim.AdamW, InstrumentedAdamW])
def test_a_decay_that_diverges_by_itself_is_refused(kind: type[torch.optim.AdamW]) -> None:
    p = torch.nn.Parameter(torch.ones(2))
    optimizer = kind([p], lr=0.5, weight_decay=4.0)
    train(optimizer, lambda: p.square().sum(), 1)
    with pytest.raises(MeasurementError, match=r"lr \* weight_decay < 2 must hold .* but got 2\. "):
        read_tensors(optimizer)


def test_a_momentum_of_one_is_refused() -> None:
    p = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.RMSprop([p], momentum=1.0)
    train(optimizer, lambda: p.square().sum(), 1)
    with pytest.raises(MeasurementError, match="momentum < 1 must hold, but got 1"):
        read_tensors(optimizer)


@pytest.mark.parametrize("kind", RULES)
def test_complex_parameters_are_refused(kind: type[torch.optim.Optimizer]) -> None:
    p = torch.nn.Parameter(torch.ones(2, dtype=torch.complex64))
    optimizer = kind([p], lr=0.1)
    train(optimizer, lambda: p.abs().square().sum(), 1)
    with pytest.raises(MeasurementError, match=r"parameters must be real, but got torch\.complex64"):
        read_tensors(optimizer)


class Foreign(torch.optim.Optimizer):
    """An optimizer from elsewhere with Adam's settings and state."""

    def __init__(self, params: list[torch.nn.Parameter], lr: float) -> None:
        super().__init__(params, {"lr": lr, "betas": (0.9, 0.99), "eps": 1e-8})


NAMES = ["SGD", "ASGD", "Rprop", "LBFGS", "Adamax", "Adadelta", "Adafactor", "SparseAdam", "Muon"]
UNKNOWN = [*(getattr(torch.optim, name) for name in NAMES if hasattr(torch.optim, name)), Foreign]


@pytest.mark.parametrize("kind", UNKNOWN)
def test_other_optimizers_are_refused_naming_the_supported_ones(kind: type[torch.optim.Optimizer]) -> None:
    optimizer = kind([torch.nn.Parameter(torch.ones(1, 1))], lr=0.1)
    with pytest.raises(MeasurementError, match=f"but got {kind.__name__}. Use one of these") as refusal:
        check_optimizer(optimizer)
    for name in ("Adam,", "AdamW,", "NAdam,", "RAdam,", "RMSprop,", "Adagrad and", "InstrumentedAdamW,"):
        assert name in str(refusal.value)


def test_groups_that_disagree_on_maximize_are_refused() -> None:
    one, other = torch.nn.Parameter(torch.ones(1)), torch.nn.Parameter(torch.ones(1))
    groups = [{"params": [one], "maximize": True}, {"params": [other]}]
    with pytest.raises(MeasurementError, match="agree on maximize"):
        check_optimizer(torch.optim.RMSprop(groups))
