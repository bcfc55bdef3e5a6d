import dataclasses
import math

import pytest

from stabletune.judgement.rules import highest_recent_ratio, imminent_spike, is_growing, predicted_rise, turning_refill
from tests.judgement.histories import ADAM, at_edge, growing_oscillation, oscillating


def test_a_growing_oscillation_at_the_edge_that_will_be_large_is_an_imminent_spike():
    history = growing_oscillation()
    finding = imminent_spike(history)
    rise = 0.01 * turning_refill(0.9, 0.99) / 0.3
    assert finding.step == 210
    assert finding.predicted_ratio == pytest.approx(1.0 + rise / history.spikes.baseline)
    assert finding.predicted_score == pytest.approx(history.spikes.score_of(history.spikes.baseline + rise))
    assert finding.sharpness_ratio == 0.99


@pytest.mark.parametrize(
    "changes",
    [
        {"energy": 0.001},  # v_hat stops it while it is small
        {"refill": 30.0},  # v_hat stops it at once
        {"earlier": 0.8},  # it hardly grew
        {"apart": 1},
        {"apart": 16},
        {"ratio": 0.94},
        {"ratio": None},
        {"read_at": 60},  # too long ago
        {"n_calm": 45},  # too young
        {"pace": 1.08},  # by less than a factor of two over eight steps
    ],
    ids=str,
)
def test_where_one_condition_does_not_hold_nothing_is_imminent(changes):
    assert imminent_spike(growing_oscillation(**changes)) is None


def test_between_measurements_and_with_a_gradient_that_does_not_grow_nothing_is_imminent():
    later = growing_oscillation()
    later.add(1.0, gradient_norm=0.1 * 1.2**11)
    assert imminent_spike(later) is None
    history = growing_oscillation()
    steady = dataclasses.replace(history, gradient_norms=[0.1] * history.step)
    assert imminent_spike(steady) is None


def test_no_spike_is_imminent_before_step_60():
    assert imminent_spike(growing_oscillation(n_calm=49, read_at=30)) is None
    assert imminent_spike(growing_oscillation(n_calm=50, read_at=30)) is not None


def test_both_measurements_must_predict_a_spike():
    history = growing_oscillation()
    history.measurements[-2] = dataclasses.replace(history.measurements[-2], oscillation_refill=5.0)
    assert imminent_spike(history) is None


def test_the_rule_leaves_the_history_as_it_is():
    history = growing_oscillation()
    before = (list(history.losses), list(history.measurements), history.spikes.worst_score)
    assert imminent_spike(history) == imminent_spike(history)
    assert (list(history.losses), history.measurements, history.spikes.worst_score) == before


def test_an_oscillation_that_doubles_every_other_step_grows_although_every_step_between_falls():
    assert is_growing([1.0] * 10 + [1.0 * 2**k if k % 2 else 0.1 for k in range(8)])
    assert not is_growing([1.0] * 20)
    assert not is_growing([1.0] * 10 + [3.0, 2.0, 1.5, 1.2])
    assert not is_growing([1.0, 2.0, 4.0])
    assert not is_growing([math.nan] * 20)


def test_a_rise_keeps_the_ratio_of_energy_and_refill_until_v_hat_stops_it():
    small, large = oscillating(100, 1e-4, 1e-3), oscillating(110, 1e-2, 1e-1)
    assert predicted_rise(small, ADAM) == pytest.approx(predicted_rise(large, ADAM))
    assert predicted_rise(small, ADAM) == pytest.approx(0.1 * turning_refill(0.9, 0.99))
    beyond = oscillating(120, 5.0, 1e3)
    assert predicted_rise(beyond, ADAM) == 5.0
    assert predicted_rise(at_edge(100), ADAM) is None


def test_the_turning_refill_grows_with_the_memory_of_v_hat_and_falls_with_that_of_the_momentum():
    assert turning_refill(0.9, 0.999) == pytest.approx(20.0)
    assert turning_refill(0.8, 0.99) == pytest.approx(12.99, abs=0.01)
    assert turning_refill(0.95, 0.9) == pytest.approx(3.118, abs=0.001)
    assert turning_refill(0.9, 0.9) < turning_refill(0.9, 0.99) < turning_refill(0.9, 0.999)
    assert turning_refill(0.95, 0.99) < turning_refill(0.9, 0.99) < turning_refill(0.8, 0.99)


def test_a_schedule_of_beta2_shortens_the_memory_early_on():
    early, late = oscillating(20, 1e-4, 1e-3), oscillating(10**6, 1e-4, 1e-3)
    scheduled = ADAM | {"beta2": 0.999, "beta2_exponent": 0.8}
    assert predicted_rise(early, scheduled) == pytest.approx(0.1 * turning_refill(0.9, 1 - 20**-0.8))
    assert predicted_rise(late, scheduled) == predicted_rise(late, ADAM | {"beta2": 0.999})


def test_the_highest_recent_ratio_is_of_the_last_150_steps():
    history = growing_oscillation(ratio=1.3, read_at=60)
    assert highest_recent_ratio(history) is None
    history.measurements.insert(1, at_edge(70, 0.6))
    assert highest_recent_ratio(history) == 0.6
