from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable

import pytest

from stabletune.monitor.schedule import Budget, EveryNth, Extras, Schedule

LOOK = 0.1
GLANCE = 0.05
GROWTH = 0.005  # of S per step, in log, where nothing enters v at beta2 = 0.99


def low(step: int) -> float:
    return 0.3


def sawtooth(period: int, lowest: float = 0.8, highest: float = 1.06) -> Callable[[int], float]:
    """S that grows to its peak and falls back at once, as with recurrent spikes."""
    return lambda step: lowest * (highest / lowest) ** (step % period / period)


@dataclasses.dataclass
class Run:
    due: list[int]
    spent: float
    n_looks: int
    n_glances: int


def simulate(schedule: Schedule, steps: int, truth: Callable[[int], float] = low, cost: float = 4.0) -> Run:
    """What the monitor does: looks see S as it is, readings cost the same but for the first, twice as much."""
    run = Run([], 0.0, 0, 0)
    for step in range(1, steps + 1):
        if schedule.is_look_due(step) and not schedule.is_due(step):
            schedule.record_look(step, truth(step), growth=GROWTH, cost=LOOK)
            run.n_looks += 1
        if schedule.is_due(step):
            price = cost if run.due else 2 * cost
            schedule.record(step, truth(step), price, foreseen=truth(step))
            run.due.append(step)
            run.spent += price
        elif schedule.is_glance_due(step):
            schedule.record_glance(step, GLANCE)
            run.n_glances += 1
    run.spent += run.n_looks * LOOK + run.n_glances * GLANCE
    return run


def crossings(truth: Callable[[int], float], steps: int) -> list[int]:
    return [step for step in range(2, steps) if truth(step - 1) <= 1 < truth(step)]


def test_every_nth_measures_at_each_nth_step_and_nothing_else() -> None:
    run = simulate(EveryNth(3), 10)
    assert run.due == [3, 6, 9]
    assert run.n_looks == run.n_glances == 0


@pytest.mark.parametrize("overhead", [0.03, 0.05, 0.15, 1.0])
@pytest.mark.parametrize("horizon", [None, 2000])
@pytest.mark.parametrize("truth", [low, sawtooth(60), sawtooth(400), lambda step: 0.97, lambda step: 1.2])
def test_the_budget_is_kept_and_used(overhead: float, horizon: int | None, truth: Callable[[int], float]) -> None:
    run = simulate(Budget(overhead, horizon), 2000, truth)
    assert run.spent <= overhead * 2000 + 1e-9
    assert run.spent >= 0.8 * overhead * 2000 - 20


@pytest.mark.parametrize("overhead", [0.05, 0.15])
def test_at_rest_near_the_edge_readings_do_not_starve(overhead: float) -> None:
    due = [0, *simulate(Budget(overhead), 3000, lambda step: 0.97).due, 3000]
    assert max(b - a for a, b in itertools.pairwise(due)) <= 30 / overhead


def test_measuring_twice_at_one_step_is_no_error() -> None:
    budget = Budget(0.15)
    for _ in range(2):
        budget.record(100, 0.9, 4.0)
    assert not budget.is_due(100)


def test_s_that_grows_with_the_learning_rate_alone_is_seen_in_time() -> None:
    run = simulate(Budget(0.3), 2000, lambda step: step / 1000)
    assert any(1000 < step <= 1010 for step in run.due)


@pytest.mark.parametrize("horizon", [None, 1000])
def test_far_from_the_edge_nearly_all_of_it_goes_into_steady_readings(horizon: int | None) -> None:
    run = simulate(Budget(0.15, horizon), 1000)
    assert 4.0 * len(run.due) >= 0.8 * 0.15 * 1000
    gaps = [b - a for a, b in itertools.pairwise(run.due) if a > 200]
    assert max(gaps) <= 1.5 * min(gaps[:-1])


@pytest.mark.parametrize("period", [120, 250, 400])
@pytest.mark.parametrize("horizon", [None, 4000])
def test_crossings_are_seen_within_five_steps_where_the_frozen_curvature_is_right(
    period: int, horizon: int | None
) -> None:
    truth = sawtooth(period)
    run = simulate(Budget(0.15, horizon), 4000, truth)
    crossed = [step for step in crossings(truth, 4000) if step > period]
    seen = [any(step <= due <= step + 5 for due in run.due) for step in crossed]
    assert len(crossed) >= 8
    assert sum(seen) >= 0.9 * len(seen)


def test_above_the_edge_readings_follow_within_three_steps_while_there_is_plenty() -> None:
    budget, due = Budget(1.0), []
    budget.record(900, 0.9, 4.0)
    for step in range(1000, 1016):
        if step == 1000 or budget.is_due(step):
            budget.record(step, 1.1, 60.0)
            due.append(step)
    assert max(b - a for a, b in itertools.pairwise(due)) <= 3
    assert due[-1] >= 1009


def test_the_gradient_is_taken_in_at_every_fifth_reading_and_after_an_episode_the_second_vector_off_the_edge() -> None:
    budget, taken = Budget(0.15), []
    for n in range(10):
        taken.append(budget.extras(100 * n + 90).gradient)
        budget.record(100 * n + 90, 0.3, 4.0)
    assert [n for n, is_taken in enumerate(taken, 1) if is_taken] == [5, 10]
    assert budget.extras(1090).second_vector
    budget.record(1090, 1.05, 4.0)
    for step, ratio in ((1100, 0.9), (1105, 0.85), (1130, 0.94)):
        budget.record_look(step, ratio, growth=GROWTH, cost=LOOK)
    assert budget.is_due(1130)
    assert budget.extras(1130) == Extras(gradient=True, second_vector=False, oscillation=False)
    assert EveryNth(10).extras(10) == Extras(gradient=True, second_vector=True, oscillation=True)


def test_how_fast_s_runs_ahead_of_its_forecast_is_learned() -> None:
    def is_due_early(lead: float) -> bool:
        budget = Budget(0.115)
        for n in range(6):
            step = 100 + 20 * n
            budget.record(step, 0.75 * lead, 4.0, foreseen=0.75 if n else None)
        budget.record_look(230, 0.9, growth=0.0, cost=0.0)
        return budget.is_due(230)

    assert is_due_early(lead=1.2)
    assert not is_due_early(lead=1.0)


@pytest.mark.parametrize("horizon", [None, 2000])
def test_the_first_hundred_steps_are_denser(horizon: int | None) -> None:
    due = simulate(Budget(0.3, horizon), 2000).due
    assert sum(step <= 100 for step in due) > 1.2 * sum(500 < step <= 600 for step in due)


def test_asking_changes_nothing() -> None:
    asked, plain = Budget(0.15), Budget(0.15)
    for step in range(1, 50):
        asked.is_due(step)
        asked.is_due(step + 1)
        asked.is_look_due(step)
    assert simulate(asked, 400) == simulate(plain, 400)


def test_a_reading_without_s_is_no_alarm_and_calls_for_no_look() -> None:
    budget = Budget(0.15, 1000)
    budget.record(100, None, 60.0)
    assert not budget.is_due(103)
    assert not any(budget.is_look_due(step) for step in range(101, 600))


@pytest.mark.parametrize("overhead", [0.02, 0.05, 0.15])
@pytest.mark.parametrize("steps", [50, 60, 150, 500, 2500])
@pytest.mark.parametrize("is_known", [True, False])
def test_runs_of_fifty_steps_or_more_have_an_early_and_a_second_reading(
    overhead: float, steps: int, is_known: bool
) -> None:
    due = simulate(Budget(overhead, steps if is_known else None), steps).due
    assert 10 <= due[0] <= 20
    assert due[0] <= max(10, 0.05 * steps)
    assert len(due) >= 2


@pytest.mark.parametrize("overhead", [0.05, 0.15])
@pytest.mark.parametrize("steps", [60, 150, 500, 2500, 20_000])
@pytest.mark.parametrize("truth", [low, sawtooth(60)])
@pytest.mark.parametrize("cost", [4.0, 12.0])
def test_a_known_horizon_is_read_to_its_end(
    overhead: float, steps: int, truth: Callable[[int], float], cost: float
) -> None:
    due = simulate(Budget(overhead, steps), steps, truth, cost).due
    assert due[-1] >= steps - steps // 50


def test_a_credit_is_paid_back_before_anything_else_is_read() -> None:
    due = simulate(Budget(0.05), 2000, cost=7.0).due
    assert due[:2] == [10, 50]
    assert 0.05 * (due[2] + 100) >= 14.0 + 7.0 + 7.0


@pytest.mark.parametrize("horizon", [1, 50, 60, 99, 100, 101, 200])
def test_after_the_given_steps_the_budget_goes_on(horizon: int) -> None:
    run = simulate(Budget(0.15, horizon), 2000)
    assert run.due[-1] > 1900
    assert run.spent <= 0.15 * 2000


def test_readings_over_the_budget_are_two_at_most() -> None:
    assert len(simulate(Budget(0.001, 500), 500).due) == 2


@pytest.mark.parametrize(("is_asked_for", "share"), [(False, 0.1), (True, 0.25)])
@pytest.mark.parametrize("price", [0.1, 0.25])
def test_glances_take_their_share_whatever_they_cost(is_asked_for: bool, share: float, price: float) -> None:
    budget, steps = Budget(0.15, 1000), []
    for step in range(1, 1001):
        if budget.is_glance_due(step, is_asked_for=is_asked_for):
            budget.record_glance(step, price)
            steps.append(step)
    assert math.isclose(len(steps) * price, share * 0.15 * 1000, abs_tol=0.3)


def test_steady_glances_leave_to_those_asked_for_what_these_are_promised() -> None:
    budget = Budget(0.15)
    for step in range(1, 501):
        if budget.is_glance_due(step):
            budget.record_glance(step, 0.25)
    assert not budget.is_glance_due(503)
    assert budget.is_glance_due(503, is_asked_for=True)


def test_no_two_steps_in_a_row_have_a_glance_however_cheap() -> None:
    budget, steps = Budget(0.15), []
    for step in range(1, 200):
        if budget.is_glance_due(step, is_asked_for=True):
            budget.record_glance(step, 0.0)
            steps.append(step)
    assert min(b - a for a, b in itertools.pairwise(steps)) == 2
