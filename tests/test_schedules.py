import pytest

from stabletune.schedules import SCHEDULES, lr_factor, steps_of, wsd_decay_steps


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_warms_up_linearly_to_one(name):
    factors = [lr_factor(name, step, warmup_steps=10, full_steps=1000) for step in range(11)]
    assert factors == pytest.approx([step / 10 for step in range(11)], abs=1e-4)


@pytest.mark.parametrize(
    ("name", "middle", "end"), [("constant", 1, 1), ("cosine", 0.5, 0), ("linear", 0.5, 0), ("wsd", 1, 0)]
)
def test_every_schedule_has_its_shape(name, middle, end):
    assert lr_factor(name, 500, warmup_steps=0, full_steps=1000) == pytest.approx(middle)
    assert lr_factor(name, 1000, warmup_steps=0, full_steps=1000) == pytest.approx(end)


def test_wsd_decays_over_the_last_fifth():
    assert lr_factor("wsd", 800, warmup_steps=0, full_steps=1000) == 1.0
    assert lr_factor("wsd", 900, warmup_steps=0, full_steps=1000) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("share", "full_steps", "expected"), [(0.1, 1000, 100), (0.1, 14, 1), (0.1, 16, 2), (0.25, 10, 2), (0.0, 7, 0)]
)
def test_a_share_of_the_steps_is_the_nearest_whole_number(share, full_steps, expected):
    assert steps_of(share, full_steps) == expected


@pytest.mark.parametrize(("full_steps", "expected"), [(1000, 200), (10, 2), (2, 1), (1, 1)])
def test_wsd_decays_in_one_step_at_least(full_steps, expected):
    assert wsd_decay_steps(full_steps) == expected


def test_an_unknown_schedule_is_refused_by_name():
    with pytest.raises(ValueError, match="must be one of constant, cosine, linear, wsd, but got 'step'"):
        lr_factor("step", 3, warmup_steps=0, full_steps=10)
