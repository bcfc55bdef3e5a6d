from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from examples.paper import beta_plane, power_laws, quadratic, tanh_spikes
from examples.paper.document import load_outcomes, save_outcomes, write_document
from examples.paper.experiments import ITEMS, Outcome
from examples.paper.findings import MISSED, REPRODUCED, SHOWN, Finding, holds, near, shown, table, within
from examples.paper.trace import CPU, Crossing, Setting, Trace, doublings, n_followed, n_preceded, stays_above, train
from stabletune.trial.workloads import tanh_regression

ROOT = Path(__file__).resolve().parents[2]


def verdicts(findings: list[Finding]) -> dict[str, str]:
    return {finding.quantity: finding.verdict for finding in findings}


def spiky_losses(*starts: int, length: int = 400) -> np.ndarray:
    losses = np.ones(length)
    for start in starts:
        losses[start - 1 : start + 4] = 5.0
    return losses


@pytest.mark.slow
def test_every_closed_form_of_the_quadratic_is_met(tmp_path: Path) -> None:
    found = verdicts(quadratic.reproduce(tmp_path))
    assert set(found.values()) == {REPRODUCED, SHOWN}
    assert (tmp_path / "reproduction_1.png").stat().st_size < 100_000


def test_at_beta2_95_the_quadratic_crosses_at_step_216_where_the_rate_over_the_root_passes_38() -> None:
    run = quadratic.observe(0.95, 220)
    assert run.trace.first_crossing() == 216
    assert run.rate_over_root[214] < quadratic.EDGE < run.rate_over_root[215]


@pytest.mark.parametrize("k", [4, 6])
def test_a_power_law_falls_at_the_slope_of_the_closed_form(k: int) -> None:
    trace = power_laws.run(k, 2500)
    assert power_laws.slope(trace) == pytest.approx(k * math.log(0.93) / (2 * (k - 2)), abs=5e-4)


@pytest.mark.slow
def test_the_power_laws_meet_every_claim_and_draw_their_figure(tmp_path: Path) -> None:
    assert set(verdicts(power_laws.reproduce(tmp_path)).values()) == {REPRODUCED}
    assert (tmp_path / "reproduction_3.png").exists()


def test_the_plane_of_the_quadratic_is_that_of_the_package() -> None:
    assert [finding.verdict for finding in beta_plane.twin_findings()] == [REPRODUCED]


def test_the_border_of_the_plane_lies_between_the_last_cell_that_crosses_and_the_first_that_does_not() -> None:
    ratios = np.array([[1.2, 1.1, 0.9, 0.8], [0.9, 0.9, 1.2, 0.9], [1.1, 1.1, 1.1, 1.1]])
    plane = beta_plane.Plane(np.array([0.5, 0.7, 0.9]), np.array([0.01, 0.1, 1.0, 10.0]), ratios, ratios)
    border = plane.border
    assert border[0] == pytest.approx(math.sqrt(0.1 * 1.0))
    assert np.isnan(border[1:]).all()


def test_a_number_outside_its_tolerance_is_a_miss_in_the_table() -> None:
    findings = [
        near("close", 1.04, 1.0, tolerance=0.05),
        near("far", 1.06, 1.0, tolerance=0.05),
        near("absent", None, 1.0, tolerance=0.05),
        near("broken", math.nan, 1.0, tolerance=0.05),
        within("inside", 2.0, 1.0, 3.0),
        within("outside", 3.1, 1.0, 3.0),
        holds("claim", "yes", measured="no", is_met=False),
        shown("bystander", measured="7"),
    ]
    found = [finding.verdict for finding in findings]
    assert found == [REPRODUCED, MISSED, MISSED, MISSED, REPRODUCED, MISSED, MISSED, SHOWN]
    lines = table([("1", finding) for finding in findings]).splitlines()
    assert [line.split(" | ")[-1].removesuffix(" |") for line in lines[2:]] == found
    assert sum("**missed**" in line for line in lines) == 5


def test_the_document_counts_the_misses_and_says_which_mode_made_the_rows(tmp_path: Path) -> None:
    findings = [near("far", 2.0, 1.0, tolerance=0.05), near("close", 1.0, 1.0, tolerance=0)]
    outcomes = {1: Outcome(findings, is_full=True, seconds=3.2), 3: Outcome(findings[1:], is_full=False, seconds=1.0)}
    save_outcomes(outcomes, tmp_path)
    assert load_outcomes(tmp_path) == outcomes
    write_document(outcomes, tmp_path)
    text = (tmp_path / "reproduction.md").read_text(encoding="utf-8")
    assert "2 reproduced, 1 missed, 0 shown" in text
    assert "1 full (3 s), 3 default (1 s)" in text
    assert "| 1 | far | 1 | ± 0.05 | 2 | **missed** |" in text


def test_the_committed_document_is_what_its_rows_give(tmp_path: Path) -> None:
    outcomes = load_outcomes(ROOT / "docs")
    assert sorted(outcomes) == sorted(ITEMS)
    (tmp_path / "figures").mkdir()
    for picture in (ROOT / "docs" / "figures").glob("reproduction_*.png"):
        assert picture.stat().st_size < 100_000
        (tmp_path / "figures" / picture.name).touch()
    write_document(outcomes, tmp_path)
    assert (tmp_path / "reproduction.md").read_text(encoding="utf-8") == (ROOT / "docs" / "reproduction.md").read_text(
        encoding="utf-8"
    )


def test_the_plain_definition_counts_one_spike_in_fifty_steps() -> None:
    assert doublings(spiky_losses(100, 120, 200)) == [100, 200]
    assert doublings(spiky_losses(100, 150)) == [100, 150]


def test_stays_above_one_are_joined_when_closer_than_fifty_steps_and_must_last() -> None:
    steps = np.arange(1, 301)
    values = np.full(300, 0.9)
    values[9:20] = values[49:60] = values[149:151] = values[289:] = 1.1
    assert stays_above(steps, values) == [Crossing(10, 60), Crossing(150, 151), Crossing(290, 300)]
    assert stays_above(steps, values, sustained=3) == [Crossing(10, 60), Crossing(290, 300)]


def test_a_crossing_without_a_spike_and_a_spike_without_a_crossing_are_told_apart() -> None:
    crossings = [Crossing(10, 20), Crossing(100, 110)]
    assert n_followed(crossings, [25, 300]) == 1
    assert n_preceded([25, 115, 300], crossings) == 2


def test_a_range_of_seeds_widened_by_half_covers_what_lies_near_it() -> None:
    assert tanh_spikes.covers([10, 20], 30)
    assert not tanh_spikes.covers([10, 20], 31)
    assert not tanh_spikes.covers([], 1)


def test_measuring_at_further_steps_leaves_the_losses_alone() -> None:
    def run(**measuring: object) -> Trace:
        training = tanh_regression.build(0, CPU, dtype="float64")
        return train(training, Setting(lr=0.02, beta2=0.99), steps=12, **measuring)  # type: ignore[arg-type]

    measured = run(every=5, dense=(7, 8))
    assert [m.step for m in measured.measurements] == [5, 7, 8, 10]
    assert np.array_equal(measured.losses, run().losses)
    assert measured.at("sharpness_ratio", 9) == measured.at("sharpness_ratio", 8)


def test_the_rate_is_constant_after_the_warm_up() -> None:
    rates = []
    training = tanh_regression.build(0, CPU)
    setting = dataclasses.replace(Setting(lr=0.02, beta2=0.99), warmup_steps=4)
    train(training, setting, steps=6, on_step=lambda step, optimizer: rates.append(optimizer.param_groups[0]["lr"]))
    assert rates == pytest.approx([0.0, 0.005, 0.01, 0.015, 0.02, 0.02])
