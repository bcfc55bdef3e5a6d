import math

import pytest

from stabletune.judgement.forecast import spike_risk, steps_to_edge
from stabletune.judgement.history import History
from stabletune.judgement.spikes import SpikeDetector
from stabletune.records import Measurement
from tests.trial.specs import quadratic_spec


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


def history_with(*readings, **changes):
    measurements = [
        Measurement(step=step, loss=1.0, lr=1e-3, sharpness_ratio=s, v_hat_staleness=staleness)
        for step, s, staleness in readings
    ]
    return History(quadratic_spec(**changes), SpikeDetector(), measurements=measurements)


def test_risk_grows_with_the_largest_staleness_seen():
    risks = [spike_risk(history_with((30, 0.8, worst), (50, 0.9, 1.0))) for worst in (1.0, 30.0, 1000.0)]
    assert risks == sorted(risks)
    assert risks[0] < 0.1
    assert risks[2] > 0.5


def test_staleness_without_curvature_in_reach_of_the_edge_is_no_risk():
    memorized = history_with((400, 0.004, 5e5), (500, 0.004, 5e5), full_steps=2500)
    assert spike_risk(memorized) <= 0.05
    assert spike_risk(history_with((500, -0.3, 5e5))) <= 0.05


def test_risk_without_readings_is_even_odds():
    assert spike_risk(history_with()) == 0.5
