import pytest
import torch

from stabletune.signals.optimizer_state.reading import read_tensors
from stabletune.signals.oscillation import oscillation

SETTLED = 400


def stepped(gradient_at, *, betas=(0.9, 0.99), eps=1e-8, lr=1e-2, n_steps=SETTLED, sizes=(3,), **settings):
    params = [torch.nn.Parameter(torch.ones(size, dtype=torch.float64)) for size in sizes]
    optimizer = torch.optim.AdamW(params, lr=lr, betas=betas, eps=eps, weight_decay=0.0, **settings)
    for step in range(n_steps):
        for param in params:
            param.grad = gradient_at(step, param).double()
        optimizer.step()
    return optimizer


def read(optimizer):
    tensors = read_tensors(optimizer)
    return oscillation(tensors, [tensor.param.grad for tensor in tensors])


@pytest.mark.parametrize("beta1", [0.5, 0.9, 0.98])
def test_an_alternating_gradient_is_recovered_whatever_the_momentum(beta1):
    size = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    n_steps = 2000
    optimizer = stepped(lambda step, p: (-1) ** step * size, betas=(beta1, 0.99), n_steps=n_steps)
    kappa = 1e-2 * (1 - beta1) / (1 + beta1)
    found = read(optimizer)
    # v_hat is G² exactly, so that W G² = kappa / 2 · |G|
    assert found.energy == pytest.approx(0.5 * kappa / 2 * size.sum().item(), rel=1e-6)
    assert found.refill == pytest.approx(1.0, rel=1e-6)


def test_the_energy_is_the_loss_of_the_flipping_mode_at_the_edge():
    curvature, amplitude, betas = 3.0, 0.2, (0.9, 0.99)
    optimizer = stepped(
        lambda step, p: (-1) ** step * curvature * amplitude * torch.ones_like(p), betas=betas, sizes=(1,)
    )
    (group,) = optimizer.param_groups
    group["lr"] = 2 * (1 + betas[0]) / (1 - betas[0]) * (curvature * amplitude + 1e-8) / curvature
    (tensor,) = read_tensors(optimizer)
    weight = tensor.step_size / 2 / (tensor.v_hat_root + tensor.eps)
    assert float(weight * curvature) == pytest.approx(1.0, rel=1e-9), "this is meant to be the edge"
    assert read(optimizer).energy == pytest.approx(0.5 * curvature * amplitude**2, rel=1e-6)


def test_a_gradient_that_does_not_change_sign_holds_no_energy():
    alternating = read(stepped(lambda step, p: (-1) ** step * torch.ones_like(p)))
    steady = read(stepped(lambda step, p: torch.ones_like(p)))
    assert steady is None or steady.energy < 1e-20 * alternating.energy


def test_an_oscillation_on_top_of_a_drift_is_seen_as_if_alone():
    def both(step, p):
        return (5.0 + 0.01 * (-1) ** step) * torch.ones_like(p)

    optimizer = stepped(both)
    weight = 1e-2 / 19 / 2 / read_tensors(optimizer)[0].v_hat_root
    assert read(optimizer).energy == pytest.approx(float(0.5 * (weight * 0.01**2).sum()), rel=1e-3)


def test_refill_compares_the_oscillation_with_what_v_hat_remembers():
    def shrunken(step, p):
        return (-1) ** step * torch.ones_like(p) * (1.0 if step < SETTLED - 50 else 0.1)

    optimizer = stepped(shrunken, betas=(0.9, 0.999))
    v_hat = read_tensors(optimizer)[0].v_hat[0].item()
    assert v_hat > 0.5
    assert read(optimizer).refill == pytest.approx(0.01 / v_hat, rel=0.05)  # m still holds the last of the larger ones


def test_groups_add_up_and_a_group_at_rest_has_no_part():
    def gradient(step, p):
        return (-1) ** step * torch.full_like(p, p.numel())

    together = stepped(gradient, sizes=(2, 3))
    apart = [read(stepped(gradient, sizes=(size,))).energy for size in (2, 3)]
    assert read(together).energy == pytest.approx(sum(apart), rel=1e-9)
    first, second = together.param_groups[0]["params"]
    resting = {**together.param_groups[0], "params": [second], "lr": 0.0}
    together.param_groups[0]["params"] = [first]
    together.param_groups.append(resting)
    assert read(together).energy == pytest.approx(apart[0], rel=1e-9)


@pytest.mark.parametrize("eps", [0.0, 1e-8, 0.3])
def test_coordinates_without_a_gradient_have_no_part(eps):
    def with_dead(step, p):
        return (-1) ** step * torch.tensor([1.0, 0.0, 0.0])

    optimizer = stepped(with_dead, eps=eps)
    alone = read(stepped(lambda step, p: (-1) ** step * torch.ones_like(p), eps=eps, sizes=(1,)))
    assert read(optimizer).energy == pytest.approx(alone.energy, rel=1e-9)
    assert read(optimizer).refill == pytest.approx(alone.refill, rel=1e-9)


def test_without_an_averaged_gradient_there_is_nothing_to_read():
    assert read(stepped(lambda step, p: (-1) ** step * torch.ones_like(p), betas=(0.0, 0.99))) is None
    param = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.RMSprop([param])
    param.grad = torch.ones(2)
    optimizer.step()
    assert read(optimizer) is None
