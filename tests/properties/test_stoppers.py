"""Stoppers, forecast, diagnosis and alerts answer on any history whatever, with numbers that are none in it."""

import dataclasses
import math

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from stabletune.judgement.alert_levels import AlertLevels
from stabletune.judgement.diagnosis import diagnose
from stabletune.judgement.forecast import expected_onset, spike_risk
from stabletune.judgement.history import History
from stabletune.judgement.spikes import SpikeDetector
from stabletune.records import Measurement
from stabletune.trial.stoppers import load_stoppers
from stabletune.trial.verdict import Verdict
from tests.trial.specs import quadratic_spec

any_number = st.none() | st.floats(0.0, 1e9) | st.sampled_from([math.nan, math.inf])
SIGNALS = [
    field.name
    for field in dataclasses.fields(Measurement)
    if "float" in str(field.type) and "tuple" not in str(field.type) and field.name not in ("loss", "lr")
]
norms = st.floats(0.0, 1e100) | st.sampled_from([math.nan, math.inf])
losses = st.floats(1e-6, 1e6) | st.sampled_from([math.nan, math.inf])


@st.composite
def histories(draw):
    n_steps = draw(st.integers(1, 120))
    history = History(
        quadratic_spec(
            steps=n_steps,
            params={"beta2": draw(st.floats(0.0, 0.9999)), "warmup_ratio": draw(st.floats(0.0, 0.9))},
            pace_limits=tuple(draw(st.lists(st.tuples(st.integers(1, 120), st.floats()), max_size=2))),
        ),
        SpikeDetector(),
    )
    for step in range(1, n_steps + 1):
        history.add(
            draw(losses),
            gradient_norm=draw(norms),
            lr=draw(st.floats(0.0, 10.0)),
        )
        if draw(st.booleans()):
            fields = {name: draw(any_number) for name in draw(st.lists(st.sampled_from(SIGNALS), max_size=4))}
            history.measurements.append(Measurement(step=step, loss=history.losses[-1], lr=0.1, **fields))
    return history


@settings(phases=[Phase.explicit, Phase.reuse, Phase.generate])  # to shrink a history takes minutes
@given(history=histories())
def test_every_judge_answers_on_any_history(history):
    for stopper in load_stoppers():
        found = stopper(history)
        assert found is None or (isinstance(found, Verdict) and found.reason.endswith("."))
    for diagnosis in diagnose(history):
        assert diagnosis.cause and diagnosis.evidence.endswith(".") and diagnosis.remedy.endswith(".")
    AlertLevels().update(history)
    risk = spike_risk(history)
    assert risk is None or 0.0 <= risk <= 1.0
    expected_onset(history)
