from __future__ import annotations

import copy
import io
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from stabletune.optim import InstrumentedAdamW
from stabletune.optim.second_moment_reset import AGE, MOST_STALE_STEPS, STALE_STEPS, YOUNG, reset_stale_memories
from tests.optim.nets import net, parameters_equal, train


def state_after(n_steps: int, v_hat: Tensor, beta2: float, **more: int) -> dict[str, Any]:
    return {"step": torch.tensor(float(n_steps)), "exp_avg_sq": v_hat * (1 - beta2**n_steps), **more}


def stale_after(grad: list[float], v_hat: list[float], *, limit: float, beta2: float = 0.99) -> bool:
    state = state_after(40, torch.tensor(v_hat, dtype=torch.float64), beta2)
    reset_stale_memories([torch.tensor(grad, dtype=torch.float64)], [state], limit=limit, beta2=beta2)
    return bool(state[STALE_STEPS] == 1)


def test_stale_means_most_coordinates_and_the_sum_are_below_the_limit() -> None:
    assert stale_after([0.3, -0.3, 0.3], [1.0, 1.0, 1.0], limit=10.0)
    assert not stale_after([0.3, -0.3, 0.3], [1.0, 1.0, 1.0], limit=12.0)
    assert stale_after([0.1, 0.1, 0.4], [1.0, 1.0, 1.0], limit=10.0)
    assert not stale_after([0.1, 0.4, 0.4], [1.0, 1.0, 1.0], limit=10.0)
    assert not stale_after([0.0, 0.0, 1.0], [1.0, 1.0, 1.0], limit=10.0)


def test_coordinates_that_never_saw_a_gradient_are_not_stale() -> None:
    assert not stale_after([0.0, 0.0, 0.1], [0.0, 0.0, 1.0], limit=2.0)


def test_the_memory_is_reset_from_the_third_stale_step_on_and_held_while_they_last() -> None:
    p = torch.nn.Parameter(torch.ones(4, dtype=torch.float64))
    optimizer = InstrumentedAdamW([p], lr=0.0, betas=(0.9, 0.999), second_moment_reset=10.0)
    ages: list[int | None] = []
    for scale in [1.0] * 100 + [1e-3] * 6 + [1.0] * 3:
        p.grad = torch.full_like(p, scale)
        optimizer.step()
        ages.append(optimizer.state[p].get(AGE))
    assert ages[: 100 + MOST_STALE_STEPS - 1] == [None] * (100 + MOST_STALE_STEPS - 1)
    assert ages[100 + MOST_STALE_STEPS - 1 :] == [YOUNG + 1] * 4 + [YOUNG + 2, YOUNG + 3, YOUNG + 4]


def test_a_reset_lets_v_hat_follow_down_without_a_leap_and_up_again() -> None:
    p = torch.nn.Parameter(torch.ones(4, dtype=torch.float64))
    optimizer = InstrumentedAdamW([p], lr=0.0, betas=(0.9, 0.999), second_moment_reset=10.0)
    seen = []
    for t, scale in enumerate([1.0] * 500 + [1e-2] * 40 + [1.0] * 5, start=1):
        p.grad = torch.full_like(p, scale)
        optimizer.step()
        seen.append(float(optimizer.state[p]["exp_avg_sq"][0]) / (1 - 0.999**t))
    ratios = [now / before for before, now in itertools.pairwise(seen)]
    assert min(ratios) > YOUNG / (YOUNG + 1) * 0.99
    assert seen[539] < 2e-3 and seen[500] > 0.99
    assert seen[544] > 0.15


def test_steady_and_noisy_gradients_are_never_reset() -> None:
    draw = torch.Generator().manual_seed(0)
    p = torch.nn.Parameter(torch.ones(50))
    optimizer = InstrumentedAdamW([p], betas=(0.9, 0.99), second_moment_reset=2.0)
    for _ in range(300):
        p.grad = torch.randn(50, generator=draw)
        optimizer.step()
    assert AGE not in optimizer.state[p]


def test_the_memory_is_per_tensor() -> None:
    fading, steady = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    optimizer = InstrumentedAdamW([fading, steady], second_moment_reset=10.0)
    for t in range(40):
        fading.grad, steady.grad = torch.full((3,), 1.0 if t < 20 else 1e-3), torch.ones(3)
        optimizer.step()
    assert AGE in optimizer.state[fading] and AGE not in optimizer.state[steady]


def faded() -> tuple[torch.nn.Module, InstrumentedAdamW]:
    """A net and its optimizer with a reset behind it and two stale steps counted."""
    model = net()
    optimizer = InstrumentedAdamW(model.parameters(), lr=1e-2, second_moment_reset=3.0)
    for t in range(40):
        for p in model.parameters():
            p.grad = torch.full_like(p, 1.0 if t < 30 or 34 <= t < 38 else 1e-2)
        optimizer.step()
    state = optimizer.state[next(model.parameters())]
    assert state[AGE] > YOUNG + 1 and state[STALE_STEPS] == 2
    return model, optimizer


def test_the_memory_is_in_the_state_dict_and_training_resumes_bit_for_bit() -> None:
    model, optimizer = faded()
    twin = copy.deepcopy(model)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    resumed = InstrumentedAdamW(twin.parameters())
    resumed.load_state_dict(torch.load(file, weights_only=True))
    train(model, optimizer, steps=20)
    train(twin, resumed, steps=20)
    assert parameters_equal(model, twin)
    ours, theirs = (o.state_dict()["state"][0] for o in (optimizer, resumed))
    assert (ours[AGE], ours[STALE_STEPS]) == (theirs[AGE], theirs[STALE_STEPS])


def test_copies_keep_the_memory() -> None:
    model, optimizer = faded()
    twin, copied = copy.deepcopy((model, optimizer))
    train(model, optimizer, steps=20)
    train(twin, copied, steps=20)
    assert parameters_equal(model, twin)


def test_torchs_adamw_goes_on_from_the_same_v_hat() -> None:
    model, optimizer = faded()
    twin = copy.deepcopy(model)
    plain = torch.optim.AdamW(twin.parameters(), foreach=True)
    plain.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for group in optimizer.param_groups:
        group["second_moment_reset"] = None
    train(model, optimizer, steps=5)
    train(twin, plain, steps=5)
    assert parameters_equal(model, twin)


def test_a_plain_state_loads_and_is_reset_when_its_gradients_fade() -> None:
    model = net()
    plain = torch.optim.AdamW(model.parameters())
    train(model, plain, steps=30)
    optimizer = InstrumentedAdamW(model.parameters(), second_moment_reset=10.0)
    optimizer.load_state_dict(plain.state_dict())
    for _ in range(MOST_STALE_STEPS):
        for p in model.parameters():
            p.grad = torch.full_like(p, 1e-6)
        optimizer.step()
    assert all(optimizer.state[p][AGE] == YOUNG + 1 for p in model.parameters())


@pytest.mark.parametrize("value", [1.0, 0.5])
def test_a_limit_of_one_or_less_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="second_moment_reset must be a number above 1 and finite, or None, but got"):
        InstrumentedAdamW(net().parameters(), second_moment_reset=value)
