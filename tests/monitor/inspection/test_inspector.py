"""Closer looks: what stands out is compared under the same parameters, and nothing of the training is changed."""

import pytest
import torch

from stabletune.monitor.inspection.inspector import Inspector


class Line(torch.nn.Module):
    """A weight with BatchNorm and dropout, so that buffers and random states could change."""

    def __init__(self):
        super().__init__()
        self.layer, self.norm = torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)
        self.dropout = torch.nn.Dropout(0.5)

    def forward(self, x):
        return self.dropout(self.norm(self.layer(x)))


def closure_of(model, scale):
    torch.manual_seed(1)
    x, y = torch.randn(8, 3), torch.randn(8, 2) * scale
    return lambda: (model(x) - y).square().mean()


def made(model, scales):
    optimizer = torch.optim.Adam(model.parameters())
    inspector = Inspector(model, optimizer)
    for step, scale in enumerate(scales, start=1):
        inspector.remember(step, scale, closure_of(model, scale), 1.0)
    return inspector


def test_the_newest_batch_is_compared_with_those_before_it():
    model = torch.nn.Linear(3, 2)
    found = made(model, [1.0, 1.0, 1.0, 1.0, 9.0]).inspect(5)
    assert found.suspect.step == 5 and [other.step for other in found.others] == [2, 3, 4]
    assert found.suspect.loss == pytest.approx(float(closure_of(model, 9.0)().detach()))
    assert found.precise_loss == pytest.approx(found.suspect.loss, rel=1e-5)
    loss = closure_of(model, 9.0)()
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    assert found.suspect.gradient_norm == pytest.approx(float(torch.cat([g.flatten() for g in gradients]).norm()))
    assert found.has_finite_inputs and found.lowest_precision == "float32"


def test_a_gradient_that_stood_out_just_before_makes_its_batch_the_suspect():
    model = torch.nn.Linear(3, 2)
    inspector = made(model, [1.0] * 20)
    assert inspector.remember(21, 1.0, closure_of(model, 5.0), 10.0)
    assert not inspector.remember(22, 1.0, closure_of(model, 1.0), 1.0)
    assert inspector.inspect(22).suspect.step == 21


def test_a_suspect_that_stands_out_is_compared_once_more():
    model = torch.nn.Linear(3, 2)
    inspector = made(model, [1.0, 1.0, 9.0])
    inspector.inspect(3)
    assert not inspector.is_repeat_due(5, is_over=False)
    assert inspector.is_repeat_due(5, is_over=True) and inspector.is_repeat_due(13, is_over=False)
    inspector.remember(4, 1.0, closure_of(model, 1.0), 1.0)
    again = inspector.repeat(13)
    assert again.is_repeat and again.suspect.step == 3 and [other.step for other in again.others] == [4]
    assert not inspector.is_repeat_due(30, is_over=True)


def test_one_batch_among_its_like_is_not_looked_at_again():
    inspector = made(torch.nn.Linear(3, 2), [1.0, 1.0, 1.0])
    inspector.inspect(3)
    assert not inspector.is_repeat_due(100, is_over=True)


def test_a_look_changes_nothing():
    model = Line()
    inspector = made(model, [1.0, 1.0, 9.0])
    model(torch.randn(4, 3)).sum().backward()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    gradients = [p.grad.clone() for p in model.parameters()]
    random = torch.get_rng_state()
    inspector.inspect(3)
    inspector.logits(closure_of(model, 1.0))
    inspector.remember(4, 1.0, closure_of(model, 1.0), 1.0)
    torch.set_rng_state(random)
    inspector.repeat(13)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in state.items())
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), gradients, strict=True))


def test_what_is_looked_at_is_paid_for():
    inspector = made(torch.nn.Linear(3, 2), [1.0, 1.0, 9.0])
    assert inspector.spent == 0.0
    inspector.inspect(3)
    first = inspector.spent
    inspector.logits(closure_of(torch.nn.Linear(3, 2), 1.0))
    assert 0.0 < first < inspector.spent
