from __future__ import annotations

import pytest
import torch

from stabletune.optim import InstrumentedAdamW
from stabletune.optim.second_moment_clip import FIRST_STEPS, clip_by_second_moment


def test_entries_above_the_limit_are_brought_to_it_with_their_sign() -> None:
    beta2, n = 0.99, 50
    v_hat = torch.tensor([1.0, 1.0, 4.0, 1.0], dtype=torch.float64)
    grad = torch.tensor([3.0, -30.0, -50.0, 10.0], dtype=torch.float64)
    clipped = clip_by_second_moment(grad, v_hat * (1 - beta2**n), limit=100.0, beta2=beta2, n_steps=n)
    torch.testing.assert_close(clipped, torch.tensor([3.0, -10.0, -20.0, 10.0], dtype=torch.float64))


def test_a_coordinate_that_never_saw_a_gradient_is_not_frozen() -> None:
    clipped = clip_by_second_moment(torch.tensor([7.0]), torch.zeros(1), limit=1.0, beta2=0.9, n_steps=100)
    assert clipped.item() == 7.0


def test_the_first_steps_are_left_alone() -> None:
    grad = torch.tensor([1e6])
    untouched = clip_by_second_moment(grad, torch.tensor([1e-9]), limit=1.0, beta2=0.9, n_steps=FIRST_STEPS - 1)
    assert untouched is grad


@pytest.mark.parametrize("amsgrad", [False, True])
def test_both_moments_see_the_clipped_gradient_and_p_grad_is_kept(amsgrad: bool) -> None:
    p = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    betas, limit = (0.9, 0.99), 25.0
    optimizer = InstrumentedAdamW([p], betas=betas, amsgrad=amsgrad, second_moment_clip=limit)
    m = v = 0.0
    for t, g in enumerate([1.0] * 20 + [100.0, -100.0, 1.0], start=1):
        p.grad = torch.full((1,), g, dtype=torch.float64)
        optimizer.step()
        assert p.grad.item() == g
        if t > 20:
            bound = (limit * v / (1 - betas[1] ** (t - 1))) ** 0.5
            g = max(-bound, min(bound, g))
        m, v = betas[0] * m + (1 - betas[0]) * g, betas[1] * v + (1 - betas[1]) * g * g
        assert optimizer.state[p]["exp_avg"].item() == pytest.approx(m)
        assert optimizer.state[p]["exp_avg_sq"].item() == pytest.approx(v)
