import dataclasses
import math

import pytest

from stabletune.judgement.history import History
from stabletune.judgement.spikes import SpikeDetector
from stabletune.records import Measurement
from stabletune.trial.stoppers import load_stoppers, loss_spike, non_finite_loss, slow_progress, stale_preconditioner
from tests.trial.specs import quadratic_spec


def history_of(losses, measurements=(), **changes):
    history = History(quadratic_spec(**changes), SpikeDetector(), measurements=list(measurements))
    for loss in losses:
        history.add(loss)
    return history


def calm(steps):
    return [1.0 + 0.001 * (step % 2) for step in range(steps)]


@pytest.mark.parametrize("stopper", load_stoppers())
def test_no_stopper_ends_a_healthy_trial_and_none_changes_the_history(stopper):
    history = history_of(calm(200))
    before = (list(history.losses), list(history.measurements))
    assert stopper(history) is None
    assert stopper(history) is None
    assert (history.losses, history.measurements) == before


def test_a_loss_that_is_not_finite_diverges_with_the_step():
    verdict = non_finite_loss.verdict(history_of([*calm(20), math.inf]))
    assert (verdict.status, verdict.reason) == ("diverged", "step 21: the loss is inf; recorded as diverged.")


def test_a_spike_stops_the_trial_when_it_is_over():
    during = history_of([*calm(100), 6.0, 5.0])
    assert loss_spike.verdict(during) is None
    during.add(1.0)
    verdict = loss_spike.verdict(during)
    assert verdict.status == "stopped"
    assert verdict.reason.startswith("step 101: the loss spiked to 6 times its running median, spike score")


def test_a_spike_that_does_not_end_stops_the_trial_after_25_steps():
    assert loss_spike.verdict(history_of([*calm(100), *[6.0] * 25])) is None
    assert loss_spike.verdict(history_of([*calm(100), *[6.0] * 26])).status == "stopped"


def test_the_baseline_in_proof_runs_on_through_its_spikes():
    assert loss_spike.verdict(history_of([*calm(100), 6.0, 1.0], stops_on_spike=False)) is None


def unstable(step):
    return Measurement(step=step, loss=1.0, lr=1e-3, sharpness_ratio=1.05, v_hat_staleness=40.0)


def test_sustained_instability_with_a_stale_v_hat_stops_the_trial_with_value_and_limit():
    readings = [unstable(step) for step in (580, 588, 600)]
    verdict = stale_preconditioner.verdict(history_of(calm(600), readings, params={"beta2": 0.99}))
    assert verdict.status == "stopped"
    assert "stayed at or above 1.050 (limit 1) since step 580" in verdict.reason
    assert "v_hat_staleness at or above 40 (limit 10)" in verdict.reason


def test_prediction_is_silent_between_readings_and_where_it_is_switched_off():
    readings = [unstable(step) for step in (580, 588, 600)]
    assert stale_preconditioner.verdict(history_of(calm(601), readings, params={"beta2": 0.99})) is None
    off = history_of(calm(600), readings, params={"beta2": 0.99}, predicts=False)
    assert stale_preconditioner.verdict(off) is None


def test_a_slow_trial_is_pruned_at_the_step_of_its_limit_only():
    assert slow_progress.verdict(history_of(calm(30), slow_limit=(30, 0.5))).status == "pruned"
    assert slow_progress.verdict(history_of(calm(29), slow_limit=(30, 0.5))) is None
    assert slow_progress.verdict(history_of(calm(31), slow_limit=(30, 0.5))) is None
    assert slow_progress.verdict(history_of(calm(30), slow_limit=(30, 2.0))) is None


def test_specs_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        quadratic_spec().steps = 3
