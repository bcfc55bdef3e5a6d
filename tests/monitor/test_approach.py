from __future__ import annotations

import math

from stabletune.monitor.approach import Approach

GROWTH = 0.005


def test_after_an_episode_s_is_read_anew_once_v_hat_has_been_refilled_and_decays_again() -> None:
    approach = Approach()
    approach.observe(1000, 1.05, None)
    for step, ratio in ((1010, 1.06), (1020, 0.9), (1025, 0.85), (1030, 0.84)):
        approach.look(step, ratio, GROWTH)
        assert not approach.may_have_crossed
    assert approach.is_after_episode
    approach.look(1045, 0.92, GROWTH)
    assert not approach.may_have_crossed
    approach.look(1048, 0.935, GROWTH)
    assert approach.may_have_crossed


def test_where_v_hat_is_slow_s_is_read_before_the_forecast_crossing_too() -> None:
    slow, fast = Approach(), Approach()
    for approach, n_steps in ((slow, 50), (fast, 5)):
        approach.observe(1000, 0.96, None)
        approach.look(1000 + n_steps, 0.999, math.log(0.999 / 0.96) / n_steps)
    assert slow.may_have_crossed
    assert not fast.may_have_crossed


def test_a_reading_that_is_a_little_low_does_not_put_off_the_next_one_for_ever() -> None:
    approach = Approach()
    approach.observe(1000, 0.95, None)
    approach.observe(1003, 0.94, foreseen=0.95)
    approach.look(1130, 1.002, 0.0005)
    assert approach.may_have_crossed


def test_an_episode_that_does_not_rise_again_is_read_after_sixty_steps() -> None:
    approach = Approach()
    approach.observe(1000, 1.05, None)
    for step, ratio in ((1010, 0.95), (1030, 0.94), (1059, 0.93)):
        approach.look(step, ratio, GROWTH)
        assert not approach.may_have_crossed
    approach.look(1060, 0.92, GROWTH)
    assert approach.may_have_crossed
