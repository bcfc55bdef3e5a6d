from __future__ import annotations

from typing import Any

import pytest

from stabletune.hyperparameters import scheduled_beta2
from stabletune.optim.second_moment_average import second_moment_average


def v_hats(
    squares: list[float], beta2: float, *, exponent: float | None = None, oldest: int | None = None
) -> list[float]:
    v, found = 0.0, []
    for t, square in enumerate(squares, start=1):
        age = None if oldest is None else min(t, oldest)
        decay, share = second_moment_average(t, beta2=beta2, exponent=exponent, age=age)
        v = decay * v + share * square
        found.append(v / (1 - beta2**t))
    return found


def test_the_schedule_starts_without_memory_and_never_exceeds_beta2() -> None:
    assert scheduled_beta2(1, 0.999, 0.8) == 0.0
    assert scheduled_beta2(100, 0.999, 0.8) == pytest.approx(1 - 100**-0.8)
    assert scheduled_beta2(10**6, 0.999, 0.8) == 0.999
    assert scheduled_beta2(1, 0.999, None) == 0.999


def test_without_schedule_or_reset_the_factors_are_torchs_own() -> None:
    assert second_moment_average(1, beta2=0.999) == (0.999, 1.0 - 0.999)


@pytest.mark.parametrize("exponent", [0.3, 0.8, 0.99])
@pytest.mark.parametrize("beta2", [0.0, 0.5, 0.95, 0.999])
def test_a_schedule_is_adafactors_average_without_bias_correction(beta2: float, exponent: float) -> None:
    squares = [1.0, 9.0, 0.1, 4.0, 2.0, 100.0, 0.0, 1e-4, 3.0, 7.0] * 5
    expected, average = [], 0.0
    for t, square in enumerate(squares, start=1):
        rate = min(beta2, 1 - t**-exponent)
        average = rate * average + (1 - rate) * square
        expected.append(average)
    assert v_hats(squares, beta2, exponent=exponent) == pytest.approx(expected)


@pytest.mark.parametrize("settings", [{}, {"exponent": 0.8}, {"oldest": 6}, {"oldest": 6, "exponent": 0.8}])
@pytest.mark.parametrize("beta2", [0.5, 0.9, 0.999])
def test_weights_sum_to_one_so_that_steady_gradients_give_their_square(beta2: float, settings: dict[str, Any]) -> None:
    assert v_hats([4.0] * 60, beta2, **settings) == pytest.approx([4.0] * 60)


@pytest.mark.parametrize("t", [6, 200, 10**5])
def test_an_average_of_age_a_takes_in_what_plain_adam_does_at_step_a(t: int) -> None:
    beta2 = 0.99
    decay, share = second_moment_average(t, beta2=beta2, age=6)
    weight, weight_before = 1 - beta2**t, 1 - beta2 ** (t - 1)
    assert share / weight == pytest.approx((1 - beta2) / (1 - beta2**6))
    assert decay * weight_before + share == pytest.approx(weight)


def test_an_average_as_old_as_the_run_is_plain_adams() -> None:
    assert second_moment_average(7, beta2=0.99, age=7) == pytest.approx((0.99, 0.01))
    assert second_moment_average(10**6, beta2=0.99, age=10**6) == pytest.approx((0.99, 0.01))


@pytest.mark.parametrize("exponent", [0.01, 0.5, 0.8, 0.999])
@pytest.mark.parametrize("beta2", [0.1, 0.5, 0.6, 0.9, 0.999])
def test_v_always_decays_when_nothing_enters(beta2: float, exponent: float) -> None:
    assert all(0 < second_moment_average(t, beta2=beta2, exponent=exponent)[0] < 1 for t in range(2, 3000))
