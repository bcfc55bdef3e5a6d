import json
import math

import numpy as np
import pytest

from stabletune.records import Episode, TrialResult
from stabletune.study.prediction.observation import Observation, marks, observe
from tests.trial.specs import quadratic_spec

SPIKE = Episode(start=61, end=70, worst_ratio=9.0, severity=3.0, steps_lost=9)


def result(n_steps=100, **changes):
    given = {"status": "completed", "losses": 1.0 + np.exp(-0.01 * np.arange(1, n_steps + 1)), "loss_floor": 1.0}
    spec = quadratic_spec(steps=100, full_steps=200, params={"lr": 0.02})
    return TrialResult(**{"spec": spec, "reason": "", "objective": 1.5, "risk": 0.2, **given, **changes})


def test_a_curve_holds_the_log_of_the_trailing_median_above_the_floor_at_the_octaves_and_at_the_end():
    found = observe(result(), (0.3,))
    assert [step for step, _ in found.curve] == [25, 50, 100]
    assert [value for _, value in found.curve] == pytest.approx(
        [-0.01 * (step - 9.5) for step in (25, 50, 100)], abs=1e-4
    )
    assert (found.lr, found.steps, found.has_spiked, found.objective, found.risk) == (0.02, 100, False, 1.5, 0.2)
    assert observe(result(n_steps=60), (0.3,)).curve[-1][0] == 60


def test_a_curve_ends_before_the_spike_and_the_steps_at_it():
    found = observe(result(episodes=(SPIKE,), status="stopped", n_steps=85), (0.3,))
    assert (found.steps, found.has_spiked) == (61, True)
    assert [step for step, _ in found.curve] == [25, 50, 60]
    assert found.severity > 1.0


def test_a_trial_stopped_before_its_spike_counts_as_one_that_spiked():
    found = observe(result(status="stopped", n_steps=40, objective=None), (0.3,))
    assert (found.has_spiked, found.steps) == (True, 40)


def test_of_a_failed_run_or_one_without_a_step_nothing_is_known():
    assert observe(result(status="failed"), (0.3,)) is None
    assert observe(result(losses=np.zeros(0)), (0.3,)) is None


def test_a_run_that_diverged_at_once_has_no_curve():
    found = observe(result(status="diverged", losses=np.array([math.nan]), objective=None), (0.3,))
    assert (list(found.curve), found.has_spiked, found.steps) == ([], True, 1)
    assert math.isfinite(found.log_initial)


def test_a_loss_at_its_floor_keeps_a_finite_logarithm():
    found = observe(result(losses=np.full(100, 1.0 + 1e-300)), (0.3,))
    assert all(math.isfinite(value) for _, value in found.curve)


def test_an_observation_survives_json():
    found = observe(result(), (0.3,))
    again = Observation(**json.loads(json.dumps(found.as_data())))
    assert observe(result(), (0.3,)).as_data() == {**again.as_data(), "place": (0.3,), "curve": found.curve}


def test_marks_are_halves_of_the_horizon_down_to_the_trailing_window():
    assert marks(2500) == [39, 78, 156, 312, 625, 1250, 2500]
    assert marks(60) == [30, 60]


def test_a_trial_pruned_for_its_pace_is_clean_up_to_its_end():
    found = observe(result(status="pruned", n_steps=50, objective=None), (0.3,))
    assert (found.has_spiked, found.steps, found.objective, found.severity) == (False, 50, None, 0.0)
    assert [step for step, _ in found.curve] == [25, 50]


def test_of_several_spikes_the_first_ends_the_curve():
    later = Episode(start=80, end=82, worst_ratio=90.0, severity=3.0, steps_lost=9)
    found = observe(result(episodes=(SPIKE, later)), (0.3,))
    assert (found.steps, found.curve[-1][0]) == (61, 60)


def test_a_late_divergence_keeps_the_curve_before_it():
    losses = np.append(1.0 + np.exp(-0.01 * np.arange(1, 90)), math.inf)
    found = observe(result(status="diverged", losses=losses, objective=None), (0.3,))
    assert (found.steps, found.has_spiked) == (90, True)
    assert [step for step, _ in found.curve] == [25, 50, 89]
    assert all(math.isfinite(value) for _, value in found.curve)
