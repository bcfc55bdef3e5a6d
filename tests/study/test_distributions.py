import pytest

from stabletune.space import Choices, FloatRange, IntRange, SearchSpace
from stabletune.study.distributions import is_inside, nearest_params

SPACE = SearchSpace(
    {
        "lr": FloatRange(1e-4, 1e-1, "log"),
        "beta2": FloatRange(0.9, 0.999, "log_one_minus"),
        "max_grad_norm": Choices((None, 1.0)),
    }
)


@pytest.mark.parametrize(
    ("values", "inside"),
    [
        ({"lr": 1e-3, "beta2": 0.999, "max_grad_norm": None}, True),
        ({"lr": 1e-1, "beta2": 0.9, "max_grad_norm": 1.0}, True),
        ({"lr": 1.0, "beta2": 0.99, "max_grad_norm": None}, False),
        ({"lr": 1e-3, "beta2": 0.9999, "max_grad_norm": None}, False),
        ({"lr": 1e-3, "beta2": 0.99, "max_grad_norm": 5.0}, False),
        ({"lr": 1e-3, "beta2": 0.99}, False),
    ],
)
def test_a_baseline_is_inside_only_with_all_its_values(values, inside):
    assert is_inside(SPACE, values) is inside


def test_nearest_params_are_whole_and_within_bounds_so_that_samplers_keep_the_whole_space():
    params = nearest_params(SPACE, {"lr": 7.0, "beta2": 0.99999, "max_grad_norm": 5.0})
    assert params == {
        "lr": 1e-1,
        "one_minus_beta2": pytest.approx(1e-3),
        "max_grad_norm": None,
    }


def test_no_clip_is_nearest_to_the_highest_limit():
    space = SearchSpace({"max_grad_norm": FloatRange(0.1, 10.0, "log")})
    assert nearest_params(space, {"max_grad_norm": None}) == {"max_grad_norm": 10.0}


def test_a_fraction_is_nearest_to_a_whole_number_where_the_range_has_no_others():
    space = SearchSpace({"workload_args.width": IntRange(1, 64)})
    assert [nearest_params(space, {"workload_args.width": value})["workload_args.width"] for value in (7.6, 1e9)] == [
        8,
        64,
    ]
