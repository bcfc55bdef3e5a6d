"""Stoppers, forecast, diagnosis and alerts answer on any history whatever, with numbers that are none in it."""

import math

from hypothesis import Phase, given, settings

from stabletune.judgement.alert_levels import AlertLevels
from stabletune.judgement.diagnosis import diagnose
from stabletune.judgement.forecast import expected_onset, spike_risk
from stabletune.trial.stoppers import imminent_spike, load_stoppers, loss_spike, non_finite_loss, slow_progress
from tests.properties.drawn_histories import recorded


@settings(phases=[Phase.explicit, Phase.reuse, Phase.generate])  # to shrink a history takes minutes
@given(run=recorded())
def test_every_judge_answers_on_any_history_and_changes_nothing(run):
    history = watched(run)
    before, answers = marks(history), judged(history)
    assert judged(history) == answers
    assert marks(history) == before
    decided_as_they_say(history)


def watched(run):
    """The history at the end of the run; the alerts on the way follow one from the other."""
    levels, level, n_spikes = AlertLevels(), "calm", 0
    for history in run.histories():
        stops_on_spikes_that_have_peaked(history)
        alert = levels.update(history)
        assert alert is not None or levels.level == level
        if alert is not None:
            assert alert.previous == level and alert.step == history.step and alert.message.endswith(".")
            is_news = len(history.spikes.episodes) > n_spikes or not math.isfinite(alert.loss)
            assert alert.level == levels.level and (alert.level != level or is_news)
            assert (alert.diagnosis is not None) == (alert.level == "spiked")
        level, n_spikes = levels.level, len(history.spikes.episodes)
    return history


def marks(history):
    """What a judge must leave as it is."""
    arrays = (history.losses, history.gradient_norms, history.learning_rates)
    held = (history.measurements, history.inspections, history.spikes.episodes)
    spikes = history.spikes
    return [array.tobytes() for array in arrays], [list(what) for what in held], spikes.step, repr(spikes.score)


def judged(history):
    """What stoppers, diagnosis and forecast say, each in the bounds of what it may say."""
    verdicts, diagnoses = [stopper(history) for stopper in load_stoppers()], diagnose(history)
    risk, onset = spike_risk(history), expected_onset(history)
    assert all(v is None or (v.reason.startswith("step ") and v.reason.endswith(".")) for v in verdicts)
    assert 0.0 <= risk <= 1.0
    assert onset is None or onset >= history.step
    told = {diagnosis.step for diagnosis in diagnoses}
    assert told >= {episode.start for episode in history.spikes.episodes}
    assert told or all(map(math.isfinite, history.losses))
    for diagnosis in diagnoses:
        assert diagnosis.cause and diagnosis.evidence.endswith(".") and diagnosis.remedy.endswith(".")
    return verdicts, diagnoses, risk, onset


def stops_on_spikes_that_have_peaked(history):
    spikes = history.spikes
    has_peaked = bool(spikes.episodes) and (spikes.has_recovered or history.step >= spikes.episodes[0].start + 25)
    assert status(loss_spike, history) == ("stopped" if history.spec.stops_on_spike and has_peaked else None)


def decided_as_they_say(history):
    """Whether each other stopper ends the trial where its words say so."""
    spec, episodes = history.spec, history.spikes.episodes
    is_broken = not all(map(math.isfinite, history.losses))
    assert status(non_finite_loss, history) == ("diverged" if is_broken else None)
    limit = dict(spec.pace_limits).get(history.step, math.inf)
    assert status(slow_progress, history) == ("pruned" if history.trailing_loss() > limit else None)
    if status(imminent_spike, history) is not None:
        assert spec.predicts and len(history.losses) >= 60 and not (spec.stops_on_spike and episodes)
        assert any((m.sharpness_ratio or 0.0) >= 0.95 for m in history.measurements)


def status(stopper, history):
    found = stopper.verdict(history)
    return found and found.status
