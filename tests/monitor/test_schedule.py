from __future__ import annotations

import itertools

import pytest

from stabletune.monitor.schedule import GLANCE_COST, Budget, EveryNth
from stabletune.records import Measurement


def reading(step: int, ratio: float | None = 0.3, staleness: float | None = 1.0) -> Measurement:
    return Measurement(step=step, loss=1.0, lr=0.1, sharpness_ratio=ratio, v_hat_staleness=staleness)


def simulate(
    budget: Budget,
    steps: int,
    *,
    cost: float = 7.0,
    edge_from: int | None = None,
    staleness: float = 100.0,
    ratio: float = 1.0,
) -> list[int]:
    due = []
    for step in range(1, steps + 1):
        if budget.is_due(step):
            is_near = edge_from is not None and step >= edge_from
            budget.record(reading(step, ratio if is_near else 0.3, staleness), cost)
            due.append(step)
    return due


def test_every_nth_measures_at_each_nth_step() -> None:
    assert [step for step in range(1, 10) if EveryNth(3).is_due(step)] == [3, 6, 9]


@pytest.mark.parametrize("overhead", [0.02, 0.05, 0.15, 1.0])
@pytest.mark.parametrize("horizon", [None, 2000])
@pytest.mark.parametrize("edge_from", [None, 1, 1200])
def test_the_budget_is_kept_and_used(overhead: float, horizon: int | None, edge_from: int | None) -> None:
    due = simulate(Budget(overhead, horizon), 2000, edge_from=edge_from)
    spent = 7.0 * len(due)
    assert spent <= overhead * 2000
    assert spent >= 0.3 * overhead * 2000 - 20.0


def test_away_from_the_edge_half_is_kept_in_reserve() -> None:
    away = simulate(Budget(0.15, 2000), 2000)
    near = simulate(Budget(0.15, 2000), 2000, edge_from=1000)
    assert 7.0 * len(away) <= 0.5 * 0.15 * 2000
    assert len(near) > 1.7 * len(away)


def test_near_the_edge_readings_come_every_three_steps_while_the_reserve_lasts() -> None:
    due = simulate(Budget(0.15, 2000), 2000, edge_from=1000)
    gaps = [b - a for a, b in itertools.pairwise(due) if a >= 1000]
    assert gaps[:10] == [3] * 10


def test_on_the_way_to_the_edge_they_come_every_nine_steps() -> None:
    due = simulate(Budget(0.15, 2000), 2000, edge_from=1000, ratio=0.92)
    gaps = [b - a for a, b in itertools.pairwise(due) if a >= 1000]
    assert max(gaps[:8]) == 9


def test_one_early_approach_does_not_empty_the_reserve() -> None:
    budget = Budget(0.15, 2000)
    early = simulate(budget, 300, edge_from=1)
    assert 7.0 * len(early) < 0.5 * 0.15 * 2000
    assert budget.is_due(1900)


def test_a_fresh_second_moment_or_a_low_ratio_alone_does_not_open_the_reserve() -> None:
    assert simulate(Budget(0.15, 2000), 2000, edge_from=1000, staleness=3.0) == simulate(Budget(0.15, 2000), 2000)


@pytest.mark.parametrize("horizon", [None, 2000])
def test_the_first_hundred_steps_are_denser(horizon: int | None) -> None:
    due = simulate(Budget(0.3, horizon), 2000)
    assert sum(step <= 100 for step in due) > 1.3 * sum(500 < step <= 600 for step in due)


def test_asking_changes_nothing() -> None:
    asked, plain = Budget(0.15), Budget(0.15)
    for step in range(1, 50):
        asked.is_due(step)
        asked.is_due(step + 1)
    assert simulate(asked, 400) == simulate(plain, 400)


def test_readings_without_numbers_are_no_alarm() -> None:
    budget = Budget(0.15, 1000)
    budget.record(reading(100, None, None), 60.0)
    assert not budget.is_due(103)


def readings(overhead: float, steps: int, *, is_known: bool) -> tuple[list[int], float]:
    """Costs as measured: 13.25 from nothing and at every tenth restart, 7.25 otherwise."""
    budget, due = Budget(overhead, steps if is_known else None), []
    for step in range(1, steps + 1):
        if budget.is_due(step):
            budget.record(reading(step), 13.25 if len(due) % 10 == 0 else 7.25)
            due.append(step)
    return due, sum(13.25 if i % 10 == 0 else 7.25 for i in range(len(due)))


@pytest.mark.parametrize("overhead", [0.02, 0.05, 0.15])
@pytest.mark.parametrize("steps", [50, 60, 150, 500, 2500])
@pytest.mark.parametrize("is_known", [True, False])
def test_runs_of_fifty_steps_or_more_have_an_early_and_a_second_reading(
    overhead: float, steps: int, is_known: bool
) -> None:
    due, _ = readings(overhead, steps, is_known=is_known)
    assert 10 <= due[0] <= 20
    assert due[0] <= max(10, 0.05 * steps)
    assert len(due) >= 2


@pytest.mark.parametrize("overhead", [0.05, 0.15])
@pytest.mark.parametrize("steps", [60, 150, 500, 2500, 20_000])
def test_a_known_horizon_is_read_to_its_end(overhead: float, steps: int) -> None:
    due, _ = readings(overhead, steps, is_known=True)
    assert 0.9 * steps <= due[-1] <= steps


@pytest.mark.parametrize("overhead", [0.05, 0.15, 0.5])
@pytest.mark.parametrize("steps", [1000, 2500, 20_000])
def test_over_known_steps_the_base_half_is_used_up_to_one_reading(overhead: float, steps: int) -> None:
    _, spent = readings(overhead, steps, is_known=True)
    half = 0.5 * overhead * steps
    assert half - 14.0 <= spent <= half + 14.0


@pytest.mark.parametrize("cost", [5.0, 14.0, 25.0])
def test_the_last_reading_falls_near_the_end_whatever_readings_cost(cost: float) -> None:
    due = simulate(Budget(0.15, 500), 500, cost=cost)
    assert due[-1] == 490
    assert cost * len(due) <= 0.15 * 500


def test_a_credit_is_paid_back_before_anything_else_is_read() -> None:
    due, _ = readings(0.05, 2000, is_known=False)
    assert due[:2] == [10, 50]
    assert due[2] > 2 * (13.25 + 7.25 + 7.25) / 0.05 - 110


def test_after_the_given_steps_the_budget_goes_on() -> None:
    due = simulate(Budget(0.15, 200), 2000)
    assert due[-1] > 1900
    assert 7.0 * len(due) <= 0.5 * 0.15 * 2000


def test_readings_over_the_budget_are_two_at_most() -> None:
    assert len(readings(0.001, 500, is_known=True)[0]) == 2


def test_glances_take_a_tenth_of_the_budget() -> None:
    budget, n = Budget(0.15, 1000), 0
    for step in range(1, 1001):
        if budget.is_glance_due(step):
            budget.record_glance(GLANCE_COST)
            n += 1
    assert n * GLANCE_COST == pytest.approx(0.1 * 0.15 * 1000, abs=GLANCE_COST)
    assert not EveryNth(1).is_glance_due(1)


@pytest.mark.parametrize("horizon", [None, 2000])
@pytest.mark.parametrize("overhead", [0.03, 0.15])
def test_all_purses_together_keep_the_overhead(overhead: float, horizon: int | None) -> None:
    budget, spent = Budget(overhead, horizon), 0.0
    for step in range(1, 2001):
        if budget.is_due(step):
            budget.record(reading(step, 1.0, 100.0), 7.25)
            spent += 7.25
        elif budget.is_glance_due(step):
            budget.record_glance(GLANCE_COST)
            spent += GLANCE_COST
    assert 0.8 * overhead * 2000 - 20 <= spent <= overhead * 2000
