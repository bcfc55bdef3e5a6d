from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import yaml

from stabletune.document import Document
from stabletune.errors import ConfigError
from stabletune.hyperparameters import HYPERPARAMETERS
from stabletune.space import (
    Choices,
    FloatRange,
    IntRange,
    SearchSpace,
    list_search_spaces,
    load_search_space,
    parse_search_space,
)


def parsed(mapping: dict[str, Any]) -> SearchSpace:
    return parse_search_space(Document("c.yaml", {"search_space": mapping}, {}), ("search_space",), mapping)


WITHOUT_THE_DEFAULTS = {"adam_low_risk"}  # on purpose: beta2 = 0.999 is what it keeps away from


def problems_of(mapping: Any) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        parsed(mapping)
    return caught.value.problems


def test_every_shipped_space_is_valid_and_holds_torch_defaults_where_it_searches_them() -> None:
    general = {"adam_lr_beta2", "adam_lr_beta2_clip", "adam_full", "adam_lr_betas"}
    assert set(list_search_spaces()) >= general | {"adam_stale_v", "adam_bad_batches", "adam_low_risk"}
    for name in list_search_spaces():
        space = load_search_space(name)
        assert space.source == name
        defaults = {known: HYPERPARAMETERS[known].default for known in space.ranges}
        assert space.contains(defaults) == (name not in WITHOUT_THE_DEFAULTS)


def test_every_other_shipped_space_reaches_beta2_of_9999() -> None:
    for name in set(list_search_spaces()) - WITHOUT_THE_DEFAULTS:
        beta2 = load_search_space(name).ranges["beta2"]
        assert beta2 == FloatRange(beta2.low, 0.9999, "log_one_minus")  # type: ignore[union-attr]


def test_the_pinned_example_is_read_as_written() -> None:
    space = parsed(
        yaml.safe_load(
            "lr: {low: 1.0e-4, high: 1.0e-1, scale: log}\n"
            "beta2: {low: 0.9, high: 0.9999, scale: log_one_minus}\n"
            "max_grad_norm: {choices: [null, 0.5, 1, 5.0]}\n"
        )
    )
    assert space.ranges == {
        "lr": FloatRange(1e-4, 1e-1, "log"),
        "beta2": FloatRange(0.9, 0.9999, "log_one_minus"),
        "max_grad_norm": Choices((None, 0.5, 1.0, 5.0)),
    }


def test_a_range_without_scale_is_linear() -> None:
    assert parsed({"weight_decay": {"low": 0, "high": 1}}).ranges["weight_decay"] == FloatRange(0.0, 1.0, "linear")


def test_whole_ends_make_a_whole_range_for_workload_args_only() -> None:
    space = parsed(
        {
            "workload_args.width": {"low": 8, "high": 64, "scale": "log"},
            "workload_args.dropout": {"low": 0.0, "high": 0.5},
            "workload_args.act": {"choices": ["tanh", "relu"]},
            "update_clip": {"low": 1, "high": 2},
        }
    )
    assert space.ranges["workload_args.width"] == IntRange(8, 64, "log")
    assert space.ranges["workload_args.dropout"] == FloatRange(0.0, 0.5)
    assert space.ranges["update_clip"] == FloatRange(1.0, 2.0)
    assert space.workload_args == ("width", "dropout", "act")


def test_a_space_reads_back_from_its_own_plain_data() -> None:
    space = load_search_space("adam_full")
    assert parsed(yaml.safe_load(yaml.safe_dump(space.to_dict()))).ranges == space.ranges


def test_a_space_survives_the_process_border() -> None:
    space = load_search_space("adam_full")
    assert pickle.loads(pickle.dumps(space)) == space


def test_membership_asks_every_range() -> None:
    space = parsed({"lr": {"low": 0.1, "high": 1.0}, "amsgrad": {"choices": [True, False]}})
    assert space.contains({"lr": 0.1, "amsgrad": True, "beta2": 5})
    assert not space.contains({"lr": 0.01, "amsgrad": True})
    assert not space.contains({"lr": 0.1, "amsgrad": 1})
    assert not space.contains({"lr": 0.1})
    assert IntRange(1, 4).contains(4) and not IntRange(1, 4).contains(2.5) and not IntRange(1, 4).contains(True)


@pytest.mark.parametrize(
    ("name", "written", "said"),
    [
        (
            "beta2",
            {"low": 0.9, "high": 1.0, "scale": "log_one_minus"},
            "0 < low < high < 1 must hold, but got low=0.9, high=1.0. Set high to 0.9999 or less.",
        ),
        ("beta2", {"low": 0.9, "high": 1.0}, "0 <= low < high < 1 must hold, but got low=0.9, high=1.0."),
        (
            "lr",
            {"low": 0, "high": 1, "scale": "log"},
            "0 < low < high must hold, but got low=0, high=1. Set low above 0.",
        ),
        ("lr", {"low": 0.2, "high": 0.1}, "0 < low < high must hold, but got low=0.2, high=0.1. Set low below high"),
        ("lr", {"low": 0.1, "high": 0.1}, "A single value belongs in baseline"),
        ("eps", {"low": -1, "high": 1}, "0 <= low < high must hold, but got low=-1, high=1. Set low to 0 or more."),
        ("workload_args.n", {"low": 5, "high": 1}, "low < high must hold, but got low=5, high=1."),
        ("workload_args.n", {"low": 0, "high": 8, "scale": "log"}, "0 < low < high must hold"),
        ("workload_args.n", {"low": 1, "high": 8, "scale": "log_one_minus"}, "0 < low < high < 1 must hold"),
        ("lr", {"low": 0.1, "high": 1, "scale": "logarithmic"}, "lr.scale: must be one of linear, log, log_one_minus"),
        ("lr", {"low": 0.1}, "lr.high: must be a finite number, but got null."),
        ("lr", {"low": True, "high": 2}, "lr.low: must be a finite number, but got true."),
        ("lr", {"low": 0.1, "high": float("inf")}, "lr.high: must be a finite number, but got inf."),
        ("lr", {"low": 0.1, "hihg": 1}, "unknown key `search_space.lr.hihg`. Did you mean `search_space.lr.high`?"),
        ("lr", {"choices": [0.1], "low": 1}, "unknown key `search_space.lr.low`"),
        ("lr", 0.1, "must be {low, high, scale} or {choices: [...]}, but got 0.1."),
        ("lr", {"choices": []}, "lr.choices: must be a list of at least one value, but got []."),
        ("lr", {"choices": 0.1}, "lr.choices: must be a list of at least one value, but got 0.1."),
        ("lr", {"choices": [0.1, -1]}, "lr.choices[1]: 0 < lr must hold, but got -1."),
        ("lr", {"choices": [0.1, None]}, "lr.choices[1]: 0 < lr must hold, but got null."),
        ("lr", {"choices": [0.1, 0.1]}, "lr.choices[1]: must be different from the choices before it, but got 0.1."),
        (
            "workload_args.n",
            {"choices": [[1]]},
            "choices[0]: must be a finite number, text, true, false or null, but got [1].",
        ),
        ("workload_args.n", {"choices": [1.0, float("nan")]}, "choices[1]: must be a finite number"),
        ("weight_decay", {"choices": [2**2000]}, "choices[0]: must be a finite number"),
        ("weight_decay", {"low": 0, "high": 2**2000}, "weight_decay.high: must be a finite number"),
        ("amsgrad", {"low": 0, "high": 1}, "search_space.amsgrad: must be {choices: [true, false]}"),
        ("second_moment_reset", {"choices": [None, 1]}, "1 < second_moment_reset must hold"),
        ("beta2_exponent", {"low": 0.5, "high": 1}, "0 < low < high < 1 must hold"),
    ],
)
def test_a_range_that_breaks_a_rule_says_which(name: str, written: Any, said: str) -> None:
    (problem,) = problems_of({name: written})
    assert problem.startswith("c.yaml: ")
    assert said in problem


def test_an_unknown_hyperparameter_comes_with_its_nearest_neighbour() -> None:
    assert problems_of({"beta_2": {"low": 0.9, "high": 0.99}}) == (
        "c.yaml: unknown key `search_space.beta_2`. Did you mean `search_space.beta2`?",
    )
    assert "unknown key `search_space.workload_args.`" in problems_of({"workload_args.": {"choices": [1]}})[0]


def test_all_mistakes_of_a_space_are_shown_together() -> None:
    assert len(problems_of({"lr": 1, "betta2": {}, "eps": {"choices": [-1, -2]}})) == 4


@pytest.mark.parametrize("nothing", [{}, [], 3])
def test_a_space_that_maps_nothing_is_refused(nothing: Any) -> None:
    assert "search_space: must map hyperparameters to ranges" in problems_of(nothing)[0]


def test_a_space_in_a_file_names_that_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("version: 1\nlr: {low: 0.1, high: 1}\nbeta2: {low: 0.9, high: 2}\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml:3: beta2: 0 <= low < high < 1 must hold"):
        load_search_space("mine.yaml", folder=tmp_path)


def test_a_file_space_is_found_beside_the_config(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("lr: {low: 0.1, high: 1}\n")
    assert load_search_space("mine.yaml", folder=tmp_path).ranges == {"lr": FloatRange(0.1, 1.0)}


def test_an_unknown_name_comes_with_its_nearest_neighbour() -> None:
    with pytest.raises(ConfigError, match="Did you mean `adam_lr_beta2`"):
        load_search_space("adam_lr_bta2")
    with pytest.raises(ConfigError, match="Names: adam_bad_batches, adam_full, "):
        load_search_space("zzz")


def test_every_shipped_space_says_in_one_line_what_it_searches() -> None:
    assert all(line.endswith(".") and not line.startswith("#") for line in list_search_spaces().values())
