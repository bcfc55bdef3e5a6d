"""What holds of the definition of a spike for every run of losses."""

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stabletune.judgement.guard_policy import GuardPolicy
from stabletune.judgement.spikes import INITIAL_STEPS, REFRACTORY, SpikeDetector, find_spikes
from tests.properties.drawn_runs import NOT_FINITE, positive_runs, runs
from tests.reference.spike_scores import naive_episodes, naive_scores

lengths = st.integers(0, 300)
any_runs, finite_runs, broken_runs = runs(lengths), positive_runs(lengths), runs(lengths, odd=NOT_FINITE)


@given(losses=any_runs)
def test_episodes_lie_in_order_within_the_run_and_apart(losses):
    found = find_spikes(losses)
    for episode in found.episodes:
        assert INITIAL_STEPS < episode.start <= episode.end <= len(losses)
        assert episode.worst_ratio > 1.0 and episode.severity > 0.0 and episode.steps_lost >= 1
    for one, other in zip(found.episodes, found.episodes[1:], strict=False):
        assert other.start - one.end > REFRACTORY
    assert found.diverged == any(not math.isfinite(loss) for loss in losses)
    assert (bool(found.episodes) or found.diverged) == (found.worst_score > 1.0)


@example(losses=[1.0] * 20 + [3.0] * 5 + [1.0] * 50)
@given(losses=broken_runs)
def test_scores_and_episodes_are_those_of_a_naive_twin(losses):
    detector = SpikeDetector()
    scores = [detector.update(loss) for loss in losses]
    assert scores == pytest.approx(naive_scores(losses), rel=1e-9, abs=1e-9)
    twins = naive_episodes(losses)
    assert [(e.start, e.end, e.steps_lost) for e in detector.episodes] == [
        (e.start, e.end, e.steps_lost) for e in twins
    ]
    for episode, twin in zip(detector.episodes, twins, strict=True):
        assert episode.worst_ratio == twin.worst_ratio
        assert episode.severity == pytest.approx(twin.severity)
    assert find_spikes(losses).episodes == detector.episodes


@given(losses=any_runs, cut=st.integers(0, 300))
def test_the_past_is_judged_the_same_whatever_comes_after(losses, cut):
    part, whole = find_spikes(losses[:cut]), find_spikes(losses)
    starts = [episode.start for episode in whole.episodes if episode.start <= cut]
    assert [episode.start for episode in part.episodes] == starts
    assert part.worst_score <= whole.worst_score


@given(losses=finite_runs, exponent=st.integers(-10, 10))
def test_another_unit_of_the_loss_changes_nothing(losses, exponent):
    one, other = find_spikes(losses), find_spikes(losses * 2.0**exponent)
    assert [(e.start, e.end) for e in one.episodes] == [(e.start, e.end) for e in other.episodes]
    assert other.worst_score == pytest.approx(one.worst_score, rel=1e-6, abs=1e-6)


@given(losses=finite_runs, floor=st.integers(-8, 8))
def test_a_loss_above_its_floor_is_judged_as_one_above_zero(losses, floor):
    losses = np.round(losses * 1024.0 + 1.0).clip(max=2.0**40)  # whole numbers: the floor goes in and out exactly
    one, other = find_spikes(losses), find_spikes(losses + floor, loss_floor=float(floor))
    assert one.episodes == other.episodes
    assert one.worst_score == other.worst_score


@given(losses=finite_runs)
def test_a_loss_that_never_rises_is_no_spike(losses):
    assert find_spikes(np.sort(losses)[::-1]).episodes == []


@given(losses=any_runs, next_loss=st.floats(1e-6, 1e6))
def test_the_score_foretold_is_the_score_that_is_given(losses, next_loss):
    detector = find_spikes(losses)
    foretold = detector.score_of(next_loss)
    assert math.isnan(foretold) == math.isnan(detector.baseline)
    assert detector.update(next_loss) == (0.0 if math.isnan(foretold) else foretold)


@given(losses=any_runs, norms=runs(st.just(300)))
def test_a_guard_stays_within_its_bounds_on_any_run_and_goes_on_from_any_step(losses, norms):
    policy = GuardPolicy()
    for loss, norm in zip(losses, norms, strict=False):
        decision = policy.before_step(norm)
        assert decision is None or 0.0 < decision.gradient_scale <= 1.0
        assert policy.bounds.lr_scale <= policy.lr_scale <= 1.0
        policy.after_step(loss)
    other = GuardPolicy()
    other.load_state_dict(policy.state_dict())
    for norm, loss in zip(norms[:60], [*losses[-30:], *losses[:30]], strict=False):
        assert other.before_step(norm) == policy.before_step(norm)
        other.after_step(loss)
        policy.after_step(loss)
