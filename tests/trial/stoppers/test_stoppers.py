import dataclasses
import math

import pytest

from stabletune.judgement.history import History
from stabletune.judgement.spikes import SpikeDetector
from stabletune.records import Episode
from stabletune.trial.stoppers import imminent_spike, load_stoppers, loss_spike, non_finite_loss, slow_progress
from tests.judgement.histories import growing_oscillation
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
    assert (list(history.losses), history.measurements) == before


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


@pytest.mark.parametrize(("loss", "limit"), [(1.0, math.nan), (math.nan, 1.0), (math.nan, math.nan)])
def test_what_is_no_number_is_not_above_a_limit(loss, limit):
    assert slow_progress.verdict(history_of([loss] * 20, pace_limits=((20, limit),))) is None


def test_a_growing_oscillation_stops_the_trial_with_values_and_limits():
    verdict = imminent_spike.verdict(growing_oscillation())
    assert verdict.status == "stopped"
    assert verdict.reason.startswith("step 210: an oscillation grows at sharpness_ratio 0.990 (limit 0.95)")
    assert verdict.reason.endswith("against the limit 1.")


def test_where_prediction_is_switched_off_an_oscillation_stops_nothing():
    history = growing_oscillation()
    assert (
        imminent_spike.verdict(dataclasses.replace(history, spec=dataclasses.replace(history.spec, predicts=False)))
        is None
    )


def test_a_spike_that_has_begun_is_the_reason_and_not_its_prediction():
    history = growing_oscillation()
    history.spikes.episodes.append(Episode(start=210, end=210, worst_ratio=2.0, severity=1.0, steps_lost=1))
    stopping, watching = (
        dataclasses.replace(history, spec=dataclasses.replace(history.spec, stops_on_spike=stops))
        for stops in (True, False)
    )
    assert imminent_spike.verdict(stopping) is None
    assert imminent_spike.verdict(watching) is not None


def test_a_slow_trial_is_pruned_at_the_steps_of_its_limits_only():
    limits = ((20, 2.0), (30, 0.5))
    assert slow_progress.verdict(history_of(calm(30), pace_limits=limits)).status == "pruned"
    assert slow_progress.verdict(history_of(calm(29), pace_limits=limits)) is None
    assert slow_progress.verdict(history_of(calm(31), pace_limits=limits)) is None
    assert slow_progress.verdict(history_of(calm(20), pace_limits=limits)) is None


def test_specs_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        quadratic_spec().steps = 3
