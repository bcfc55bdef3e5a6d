from __future__ import annotations

from pathlib import Path

from tests.results.report.studies import finished_study
from tests.results.report.test_page import charts_of, outline_of, page_of

ARM = {"n_spiky": 0, "spiky_rate_upper": 0.45, "objective": 0.25, "objectives": [0.2, 0.25, 0.3]}
PILOT = {
    "metric": "final_loss",
    "source": "train",
    "steps": 2500,
    "n_seeds": 5,
    "ratio": [0.5, 0.4, 0.625],
    "steps_to_baseline": 890.0,
    "recommended": ARM,
    "baseline": {**ARM, "n_spiky": 3, "spiky_rate_upper": 0.92, "objective": 0.5},
}
POINT = {
    "trial": 3,
    "settings": {"lr": 0.004},
    "objective": 0.01,
    "clean_rate": 0.62,
    "n_proven": 1,
    "is_recommended": False,
}
FRONT = [POINT, {**POINT, "trial": 7, "settings": {"lr": 0.002}, "clean_rate": 0.97, "is_recommended": True}]
MAP = {"names": ["lr", "beta2"], "x": [1e-3, 1e-2], "y": [0.9, 0.999], "survival": [[0.9, 0.2], [0.8, 0.1]]}


def test_the_last_comparison_is_shown_beside_the_proof(tmp_path: Path) -> None:
    folder = finished_study(tmp_path / "run")
    assert "The pilot" not in outline_of(page_of(folder)).text
    folder.write_comparison(PILOT)
    text = outline_of(page_of(folder)).text
    for shown in ("The pilot", "3 of 5", "92 %", "890", "95 % interval 0.4 to 0.625"):
        assert shown in text, shown


def test_a_baseline_loss_that_is_never_reached_is_a_dash(tmp_path: Path) -> None:
    folder = finished_study(tmp_path / "run")
    folder.write_comparison({**PILOT, "steps_to_baseline": float("inf"), "ratio": None})
    assert folder.comparison()["steps_to_baseline"] is None
    assert "95 % interval" not in outline_of(page_of(folder)).text


def test_the_front_lists_its_points_and_marks_the_recommended_one(tmp_path: Path) -> None:
    folder = finished_study(tmp_path / "run")
    assert "Speed against stability" not in outline_of(page_of(folder)).text
    folder.write_analysis({**folder.analysis(), "front": FRONT})
    text = outline_of(page_of(folder)).text
    assert "Speed against stability" in text
    assert "62 %" in text and "97 %" in text and "7 ★" in text


def test_predicted_survival_is_drawn_behind_the_trials_on_their_own_axes(tmp_path: Path) -> None:
    folder = finished_study(tmp_path / "run")
    folder.write_analysis({**folder.analysis(), "stability_map": MAP})
    first, *others = charts_of(page_of(folder))["trials-map"]["traces"]
    assert first["z"] == MAP["survival"]
    assert first["x"] == MAP["x"]
    assert [round(value, 12) for value in first["y"]] == [0.1, 0.001]  # as 1 - beta2, like the trials
    assert others and all("z" not in trace for trace in others)
