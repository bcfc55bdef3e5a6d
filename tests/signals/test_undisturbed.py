from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from stabletune.signals.undisturbed import undisturbed


def test_buffers_modes_gradients_and_random_states_come_back() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3), torch.nn.Dropout(0.5))
    model[2].eval()
    params = list(model.parameters())
    model(torch.ones(4, 3)).sum().backward()
    gradients = [p.grad for p in params]
    values = [p.grad.clone() for p in params if p.grad is not None]
    buffers = {name: (id(b), b.clone()) for name, b in model.named_buffers()}
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    expected = (random.random(), float(np.random.rand()), torch.rand(2))
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    with undisturbed(model, params):
        model.eval()
        model.train()
        model(torch.randn(5, 3)).sum().backward()
        model[1].running_mean = torch.full((3,), 7.0)
        random.random()
        np.random.rand()
    assert [module.training for module in model] == [True, True, False]
    assert all(p.grad is g for p, g in zip(params, gradients, strict=True))
    assert all(torch.equal(p.grad, v) for p, v in zip(params, values, strict=True) if p.grad is not None)
    for name, buffer in model.named_buffers():
        assert id(buffer) == buffers[name][0]
        assert torch.equal(buffer, buffers[name][1])
    found = (random.random(), float(np.random.rand()), torch.rand(2))
    assert found[:2] == expected[:2] and torch.equal(found[2], expected[2])


def test_everything_comes_back_after_an_error_too() -> None:
    model = torch.nn.BatchNorm1d(2)
    before = model.running_mean.clone() if model.running_mean is not None else None
    with pytest.raises(RuntimeError, match="mine"), undisturbed(model, []):
        model(torch.randn(4, 2))
        model.eval()
        raise RuntimeError("mine")
    assert model.training
    assert before is not None and torch.equal(model.running_mean, before)


def test_a_buffer_made_by_expand_comes_back_and_so_do_those_after_it() -> None:
    model = torch.nn.Sequential(torch.nn.Identity(), torch.nn.BatchNorm1d(2))
    model[0].register_buffer("mask", torch.ones(1, 2).expand(4, 2))
    model[0].register_buffer("both", torch.arange(3.0)[None, :, None].expand(2, 3, 2))
    with undisturbed(model, []):
        model[1](torch.randn(4, 2))
        model[0].mask[0].fill_(5.0)
        model[0].both[0, 1, 0] = 9.0
    assert model[0].mask.tolist() == [[1.0, 1.0]] * 4
    assert model[0].both[1, :, 1].tolist() == [0.0, 1.0, 2.0]
    assert int(model[1].num_batches_tracked) == 0
