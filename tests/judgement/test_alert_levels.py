"""Levels with hysteresis, replayed over histories made by hand."""

import dataclasses
import math

import pytest

from stabletune.judgement.alert_levels import UNSTABLE_FOR, AlertLevels
from stabletune.judgement.history import History
from stabletune.judgement.spikes import REFRACTORY, SpikeDetector
from stabletune.records import as_data
from tests.judgement.histories import at_edge, calm, growing_oscillation, oscillating, reading
from tests.trial.specs import quadratic_spec


def alerts(losses, ratios=()):
    """Every alert of a run with these losses, S read at the steps (from 1) given."""
    history, levels, found = History(quadratic_spec(steps=len(losses)), SpikeDetector(0.0)), AlertLevels(), []
    for step, loss in enumerate(losses, 1):
        history.add(loss)
        if step in dict(ratios):
            history.measurements.append(reading(step, dict(ratios)[step]))
        alert = levels.update(history)
        if alert is not None:
            found.append((alert.step, alert.previous, alert.level))
    return found


def test_a_ratio_that_wavers_about_a_threshold_alerts_once():
    ratios = {10: 0.5, 20: 0.89, 30: 0.91, 40: 0.88, 50: 0.92, 60: 0.76, 70: 0.74, 80: 0.89}
    assert alerts(calm(100), ratios) == [(30, "calm", "approaching"), (70, "approaching", "calm")]


def masked(step, ratio, without_floor):
    return dataclasses.replace(reading(step, ratio), sharpness_ratio_masked=without_floor)


@pytest.mark.parametrize(
    ("found", "levels"),
    [
        (masked(50, 807.0, 0.6), []),
        (masked(50, 807.0, 1.01), ["approaching"]),
        (masked(50, 807.0, None), []),
        (masked(50, 1.5, None), ["approaching"]),
    ],
)
def test_coordinates_at_the_floor_alone_bring_no_run_near_the_edge(found, levels):
    history, judge = History(quadratic_spec(), SpikeDetector(0.0)), AlertLevels()
    for loss in calm(50):
        history.add(loss)
    history.measurements.append(found)
    alert = judge.update(history)
    assert ([] if alert is None else [alert.level]) == levels


def test_a_spike_alerts_where_it_begins_and_where_it_is_over():
    found = alerts([*calm(200), 3.0, 2.5, *calm(120)])
    assert found == [(201, "calm", "spiked"), (202 + REFRACTORY + 1, "spiked", "calm")]


def test_a_loss_that_takes_long_to_come_back_is_spiked_until_it_is_back():
    slow = [1.0 + 2.0 * 0.99**k for k in range(300)]
    back = 201 + next(k for k, loss in enumerate(slow) if loss <= 1.1)
    found = alerts([*calm(200), *slow, *calm(300)])
    (begun, _, _), (ended, previous, level) = found
    assert (begun, previous, level) == (201, "spiked", "calm")
    assert ended >= back > 201 + 2 * REFRACTORY


def test_predictions_that_come_again_and_again_are_one_alert():
    history, levels = growing_oscillation(), AlertLevels()
    found = [levels.update(history).level]
    for n in range(400):
        n_grown = max(0, n % 60 - 49)
        history.add(1.0 + 0.01 * (n % 2), gradient_norm=0.1 * (1.0 + 0.01 * (n % 2)) * 1.2**n_grown)
        if n % 60 in (20, 55, 59):
            seen = {20: at_edge(history.step), 55: oscillating(history.step, 0.0025, 0.075)}
            history.measurements.append(seen.get(n % 60, oscillating(history.step, 0.01, 0.3)))
        found += [] if (alert := levels.update(history)) is None else [alert.level]
    assert found == ["unstable"]


def test_a_run_that_is_known_from_a_later_step_on_alerts_as_one_known_from_its_first():
    losses = [*calm(200), 3.0, 2.5, *calm(120)]
    late, levels, found = History(quadratic_spec(), SpikeDetector(0.0)), AlertLevels(), []
    late.begin_after(50_000)
    for loss in losses:
        late.add(loss, gradient_norm=1.0, lr=1e-3 if len(late.losses) < 199 else 5e-3)
        alert = levels.update(late)
        found += [] if alert is None else [alert]
    assert [(alert.step - 50_000, alert.previous, alert.level) for alert in found] == alerts(losses)
    assert found[0].diagnosis.cause == "schedule jump"
    assert "at step 50200, 1 steps" in found[0].diagnosis.evidence


def test_two_spikes_are_two_alerts_though_the_level_stays():
    found = alerts([*calm(200), 3.0, *calm(60), 3.0, *calm(120)])
    assert [level for _, _, level in found].count("spiked") == 2
    late = alerts([*calm(200), *[3.0 + 0.5 * k for k in range(60)], 9.0, *calm(120)])
    assert [level for _, _, level in late] == ["spiked", "calm"]


def test_a_spike_from_the_edge_falls_back_to_approaching():
    found = alerts([*calm(200), 3.0, *calm(120)], {150: 1.02})
    assert [level for _, _, level in found] == ["approaching", "spiked", "approaching"]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_a_spike_until_it_has_been_finite_for_long(value):
    found = alerts([*calm(200), value, value, *calm(100)])
    assert found == [(201, "calm", "spiked"), (202 + REFRACTORY, "spiked", "calm")]


def test_a_loss_that_stops_being_finite_within_a_spike_is_an_alert_of_its_own():
    found = alerts([*calm(200), 5.0, 5.0, *[math.nan] * 235])
    assert found == [(201, "calm", "spiked"), (203, "spiked", "spiked")]


def test_a_predicted_spike_is_unstable_until_it_does_not_come():
    history, levels = growing_oscillation(), AlertLevels()
    alert = levels.update(history)
    assert (alert.previous, alert.level) == ("calm", "unstable")
    assert "an oscillation grows, sharpness_ratio 0.99, and is predicted to raise the loss to" in alert.message
    n_quiet = 0
    while levels.level == "unstable":
        history.add(history.losses[-1], gradient_norm=0.1)
        alert = levels.update(history)
        n_quiet += 1
    assert n_quiet == UNSTABLE_FOR + 1
    assert alert.level != "unstable"


def test_the_alert_of_a_spike_says_why_and_what_to_change():
    history, levels = History(quadratic_spec(), SpikeDetector(0.0)), AlertLevels()
    for loss in [*calm(200), 3.0]:
        history.add(loss, gradient_norm=1.0, lr=1e-3 if history.step < 200 else 5e-3)
        alert = levels.update(history)
    assert alert.diagnosis.cause == "schedule jump"
    assert alert.message.startswith("step 201: the loss spiked to 2.99 times")
    assert alert.diagnosis.evidence in alert.message and alert.diagnosis.remedy in alert.message


def test_an_alert_as_data_has_no_number_that_json_cannot_say():
    history, levels = History(quadratic_spec(), SpikeDetector(0.0)), AlertLevels()
    for loss in [*calm(20), math.nan]:
        history.add(loss)
        alert = levels.update(history)
    data = as_data(alert)
    assert data["loss"] is None
    assert (data["version"], data["level"], data["step"]) == (1, "spiked", 21)
