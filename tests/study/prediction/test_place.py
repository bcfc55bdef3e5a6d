import math

import pytest

from stabletune.space import Choices, FloatRange, IntRange, SearchSpace
from stabletune.study.prediction.place import coordinate_of, place_of, value_at

RANGES = {
    "max_grad_norm": Choices((None, 1.0)),
    "lr": FloatRange(1e-4, 1e-1, "log"),
    "beta2": FloatRange(0.9, 0.9999, "log_one_minus"),
    "weight_decay": FloatRange(0.0, 0.2, "linear"),
    "workload_args.width": IntRange(8, 32, "log"),
}
SPACE = SearchSpace(RANGES)
MIDDLE = {"lr": 10**-2.5, "beta2": 1.0 - 10**-2.5, "weight_decay": 0.1, "workload_args.width": 16}


def test_the_middle_of_every_scale_lies_at_one_half():
    assert place_of({"max_grad_norm": None, **MIDDLE}, SPACE)[2:] == pytest.approx((0.5,) * 4)


def test_the_ends_of_a_range_lie_at_zero_and_one_and_what_is_outside_beyond():
    assert place_of({"lr": 1e-4, "beta2": 0.9999}, SPACE)[2:4] == pytest.approx((0.0, 1.0))
    assert place_of({"lr": 1.0, "beta2": 0.5}, SPACE)[2] == pytest.approx(4.0 / 3.0)
    assert place_of({"lr": 1.0, "beta2": 0.5}, SPACE)[3] < 0.0


def test_zero_on_a_log_scale_is_far_outside_but_not_infinitely():
    assert place_of({"lr": 0.0, "beta2": 1.0}, SPACE)[2:4] == (-0.5, 1.5)


def test_two_choices_lie_half_a_range_apart():
    one, other = (place_of({"max_grad_norm": choice, **MIDDLE}, SPACE) for choice in (None, 1.0))
    assert math.dist(one, other) == pytest.approx(0.5)


def test_an_unknown_value_lies_in_the_middle():
    assert place_of({}, SPACE)[2:] == (0.5,) * 4


@pytest.mark.parametrize("name", ["lr", "beta2", "weight_decay", "workload_args.width"])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_value_at_a_share_has_that_share_as_its_coordinate(name, share):
    value = value_at(share, RANGES[name])
    assert place_of({name: value}, SPACE)[coordinate_of(name, SPACE)] == pytest.approx(share, abs=1e-9)


def test_coordinates_are_counted_past_choices_which_have_none_of_their_own():
    assert [coordinate_of(name, SPACE) for name in RANGES] == [None, 2, 3, 4, 5]
    assert coordinate_of("eps", SPACE) is None
