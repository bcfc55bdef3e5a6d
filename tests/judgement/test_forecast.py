import dataclasses
import math

import pytest

from stabletune.judgement.forecast import (
    expected_onset,
    predicted_height,
    rate_to_come,
    spike_potential,
    spike_risk,
    steps_to_edge,
)
from stabletune.judgement.history import History
from stabletune.judgement.rules import predicted_rise
from stabletune.judgement.spikes import SpikeDetector, find_spikes
from tests.judgement.histories import ADAM, at_edge, history_of, oscillating


@pytest.mark.parametrize(("step", "expected"), [(100, 252), (500, 780), (10**6, 1386)])
def test_steps_to_edge_are_those_measured_at_half_the_edge(step, expected):
    assert round(steps_to_edge(0.5, step, 0.999)) == pytest.approx(expected, abs=1)


def test_steps_to_edge_forecast_of_a_run_that_crossed_at_435():
    assert 200 + steps_to_edge(0.6, 200, 0.999) == pytest.approx(480, abs=30)


def test_s_is_one_when_v_has_only_decayed_for_the_forecast_steps():
    step, beta2, v = 300, 0.99, 4.0
    ahead = steps_to_edge(0.3, step, beta2)

    def v_hat(k):
        return v * beta2**k / (1 - beta2 ** (step + k))

    assert 0.3 * math.sqrt(v_hat(0) / v_hat(ahead)) == pytest.approx(1.0)


def test_at_the_edge_no_step_is_left():
    assert steps_to_edge(1.2, 100, 0.99) == 0.0


def history_with(*, refill=0.5, ratio=1.0, read_at=190, energy=0.01, n_steps=200, full_steps=1000):
    """A calm loss, one measurement of the oscillation and one reading of S."""
    history = history_of([1.0 + 0.01 * (step % 2) for step in range(n_steps)], **ADAM)
    history.spec = dataclasses.replace(history.spec, full_steps=full_steps)
    history.measurements += [at_edge(read_at, ratio), oscillating(n_steps - 10, energy, refill)]
    return history


def test_risk_grows_with_the_height_of_the_next_oscillation_at_the_edge():
    risks = [spike_risk(history_with(energy=energy)) for energy in (1e-4, 1e-3, 1e-2, 1e-1)]
    assert risks == sorted(risks)
    assert risks[-1] > 1.3 * risks[0]


def test_neither_a_high_oscillation_nor_the_edge_is_a_risk_alone():
    far, low = history_with(energy=1.0, ratio=0.1), history_with(energy=1e-6, ratio=1.05)
    assert 1.3 * max(spike_risk(far), spike_risk(low)) < spike_risk(history_with(energy=1.0, ratio=1.05))


def test_the_potential_is_the_logarithm_of_height_and_sharpness():
    history = history_with(ratio=0.8)
    rise = predicted_rise(history.measurements[-1], history.spec.params)
    height = find_spikes(history.losses[:190]).score_of(1.005 + rise)
    assert predicted_height(history) == pytest.approx(height, rel=0.01)
    assert spike_potential(history) == pytest.approx(math.log10(predicted_height(history) * 0.8**4))


def test_a_height_is_judged_by_the_loss_as_it_was_then():
    history = history_with()
    before = predicted_height(history)
    for _ in range(9):
        history.add(1e-3)
    assert predicted_height(history) == before


def test_only_the_last_150_steps_tell_how_high_an_oscillation_would_be():
    history = history_with(energy=1e-6)
    history.measurements.insert(0, oscillating(40, 1.0, 0.5))
    assert predicted_height(history) == predicted_height(history_with(energy=1e-6))


def test_risk_without_readings_is_even_odds():
    assert spike_risk(history_of([1.0] * 100)) == 0.5
    assert expected_onset(history_of([1.0] * 100)) is None
    unread = history_with()
    del unread.measurements[0]
    assert spike_risk(unread) == 0.5


def test_a_spike_is_expected_the_sooner_the_higher_the_oscillation_would_be():
    expected = [expected_onset(history_with(energy=energy)) for energy in (1e-4, 1e-3, 1e-2, 1e-1)]
    assert expected == sorted(expected, reverse=True)
    assert min(expected) > 200


def test_no_spike_is_expected_before_v_hat_alone_could_bring_s_to_its_edge():
    far = history_with(energy=1.0, ratio=0.4)
    ahead = steps_to_edge(0.4, 200, 0.99)
    assert expected_onset(far) == 200 + ahead
    assert expected_onset(history_with(energy=1.0, ratio=1e-3)) == far.spec.full_steps


@pytest.mark.parametrize(
    ("schedule", "rate"), [("constant", 1.0), ("wsd", 1.0), ("linear", 0.5), ("cosine", 0.345 / 0.905)]
)
def test_the_rate_to_come_is_that_of_halfway_through_the_rest(schedule, rate):
    history = history_with()
    history.spec = dataclasses.replace(history.spec, schedule=schedule)
    assert rate_to_come(history) == pytest.approx(math.log(rate), abs=0.005)


def test_a_rate_that_decays_lowers_the_risk():
    steady, decaying = history_with(), history_with()
    decaying.spec = dataclasses.replace(decaying.spec, schedule="cosine")
    assert spike_risk(decaying) < 0.6 * spike_risk(steady)


def test_the_fitted_numbers_are_those_of_the_documentation():
    history = history_with(energy=0.01)
    assert predicted_height(history) == pytest.approx(0.7597, abs=1e-4)
    assert spike_risk(history) == pytest.approx(0.4441, abs=1e-4)
    assert expected_onset(history) == pytest.approx(371.15, abs=0.01)
    history.spec = dataclasses.replace(history.spec, schedule="linear")
    assert spike_risk(history) == pytest.approx(
        1 / (1 + math.exp(0.19 + 0.29 * 0.11936 + 1.35 * math.log(2))), abs=1e-4
    )


@pytest.mark.parametrize("beta2", [0.5, 0.999, 1.0 - 2.0**-53])
def test_steps_to_edge_are_known_from_any_sharpness(beta2):
    assert steps_to_edge(5e-324, 100, beta2) >= steps_to_edge(1e-3, 100, beta2) >= 0.0


def test_a_height_is_judged_at_its_step_where_the_first_steps_are_not_known():
    losses = [*[1.0, 1.01] * 40, *[100.0, 101.0] * 60]
    measurements = [oscillating(70, 100.0, 0.3), oscillating(200, 1e-9, 0.3)]
    known = history_of(losses, **ADAM)
    later = History(known.spec, SpikeDetector())
    later.begin_after(30)
    for loss in losses:
        later.add(loss)
    known.measurements += measurements
    later.measurements += [dataclasses.replace(m, step=m.step + 30) for m in measurements]
    assert predicted_height(later) == predicted_height(known)
