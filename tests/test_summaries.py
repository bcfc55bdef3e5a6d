import dataclasses

import numpy as np
import pytest

from stabletune.records import Diagnosis, Episode, Measurement, TrialResult
from stabletune.summaries import trial_summary
from tests.trial.specs import quadratic_spec


@pytest.mark.parametrize(("value", "shown"), [(None, ""), (12.345, "sharpness 12.3")])
def test_raw_sharpness_is_shown_where_it_was_read(value, shown):
    reading = Measurement(step=1, loss=0.5, lr=0.1, sharpness_ratio=0.75, v_hat_staleness=2.0, sharpness=value)
    result = TrialResult(
        spec=quadratic_spec(), status="completed", reason="", losses=np.ones(20), measurements=(reading,)
    )
    assert trial_summary(result).splitlines()[0].endswith(f"v_hat_staleness 2{shown and ' '}{shown}")


def test_of_many_readings_the_highest_before_each_spike_is_shown():
    readings = tuple(
        Measurement(step=n, loss=1.0, lr=0.1, sharpness_ratio=1.03 if n == 183 else 0.5) for n in range(1, 401)
    )
    episode = Episode(start=200, end=201, worst_ratio=2.0, severity=1.0, steps_lost=1)
    result = TrialResult(
        spec=quadratic_spec(), status="completed", reason="", losses=np.ones(400), measurements=readings,
        episodes=(episode,),
    )  # fmt: skip
    lines = [line for line in trial_summary(result).splitlines() if line.startswith("step ")]
    assert any("    183  " in line and "1.030" in line for line in lines) and len(lines) < 30


@pytest.mark.parametrize(
    ("onset", "shown"),
    [
        (420.0, "forecast: risk 0.62 of a spike before step 900, if so about step 420;"),
        (2000.0, "forecast: risk 0.62 of a spike before step 900;"),
    ],
)
def test_a_clean_trial_that_is_shorter_than_the_horizon_ends_with_its_forecast(onset, shown):
    spec = quadratic_spec(full_steps=900)
    result = TrialResult(
        spec=spec, status="completed", reason="", losses=np.ones(200), risk=0.617, expected_onset=onset
    )
    assert any(line.startswith(shown) for line in trial_summary(result).splitlines())
    whole = TrialResult(spec=spec, status="completed", reason="", losses=np.ones(900), risk=0.6, expected_onset=onset)
    assert "forecast" not in trial_summary(whole)


def result_with(steps, status="completed", also=()):
    episodes = tuple(Episode(start=n, end=n, worst_ratio=2.0, severity=1.0, steps_lost=1) for n in steps)
    whys = tuple(
        Diagnosis(step=n, cause="bad batch", evidence=f"evidence {n}.", remedy=f"remedy {n}.") for n in (*steps, *also)
    )
    return TrialResult(
        spec=quadratic_spec(), status=status, reason="", losses=np.ones(500), episodes=episodes, diagnoses=whys
    )


def test_each_spike_has_its_cause_and_the_one_change_under_it():
    lines = trial_summary(result_with([100, 200])).splitlines()
    for step in (100, 200):
        at = next(k for k, line in enumerate(lines) if line.startswith(f"spike at step {step}"))
        assert lines[at + 1 : at + 3] == [f"  cause: bad batch: evidence {step}.", f"  change: remedy {step}."]


def test_beyond_three_spikes_the_causes_are_counted():
    text = trial_summary(result_with([100, 200, 300, 400]))
    assert (
        "4 spikes in all" in text and "bad batch 4" in text and "evidence 300." in text and "evidence 400." not in text
    )


def test_a_divergence_has_its_cause():
    assert "  cause: bad batch: evidence 500." in trial_summary(result_with([], "diverged", also=[500]))


def test_the_worst_spike_is_shown_however_late_it_came():
    result = result_with([100, 200, 300, 400, 450])
    episodes = (*result.episodes[:4], dataclasses.replace(result.episodes[4], worst_ratio=9.0))
    text = trial_summary(dataclasses.replace(result, episodes=episodes))
    assert "spike at step 450: 9 times" in text and "spike at step 400" not in text
