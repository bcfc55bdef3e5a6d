"""What holds of the definition of a spike for every run of losses."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stabletune.judgement.guard_policy import GuardPolicy
from stabletune.judgement.spikes import INITIAL_STEPS, REFRACTORY, SpikeDetector, find_spikes

positive = st.floats(1e-6, 1e6)
runs = st.lists(positive | st.sampled_from([math.nan, math.inf]), max_size=300)
finite_runs = st.lists(positive, min_size=INITIAL_STEPS + 1, max_size=300)


@given(losses=runs)
def test_episodes_lie_in_order_within_the_run_and_apart(losses):
    found = find_spikes(losses)
    for episode in found.episodes:
        assert INITIAL_STEPS < episode.start <= episode.end <= len(losses)
        assert episode.worst_ratio >= 1.0 and episode.severity >= 0.0
    for one, other in zip(found.episodes, found.episodes[1:], strict=False):
        assert other.start - one.end > REFRACTORY
    assert found.diverged == any(not math.isfinite(loss) for loss in losses)
    assert bool(found.episodes) <= (found.worst_score > 1.0)


@given(losses=runs, cut=st.integers(0, 300))
def test_the_past_is_judged_the_same_whatever_comes_after(losses, cut):
    part, whole = find_spikes(losses[:cut]), find_spikes(losses)
    starts = [episode.start for episode in whole.episodes if episode.start <= cut]
    assert [episode.start for episode in part.episodes] == starts
    assert part.worst_score <= whole.worst_score


@given(losses=finite_runs, exponent=st.integers(-10, 10))
def test_another_unit_of_the_loss_changes_nothing(losses, exponent):
    one, other = find_spikes(losses), find_spikes((np.asarray(losses) * 2.0**exponent).tolist())
    assert [(e.start, e.end) for e in one.episodes] == [(e.start, e.end) for e in other.episodes]
    assert math.isclose(one.worst_score, other.worst_score, rel_tol=1e-6, abs_tol=1e-6) or math.isinf(one.worst_score)


@given(losses=finite_runs)
def test_a_loss_that_never_rises_is_no_spike(losses):
    assert find_spikes(sorted(losses, reverse=True)).episodes == []


@given(losses=runs)
def test_step_by_step_is_the_same_as_at_once(losses):
    detector = SpikeDetector()
    scores = [detector.update(loss) for loss in losses]
    whole = find_spikes(losses)
    assert detector.episodes == whole.episodes
    assert all(not math.isnan(score) for score in scores)


@given(losses=runs, norms=st.lists(st.floats(), min_size=300, max_size=300))
def test_a_guard_stays_within_its_bounds_on_any_run_and_goes_on_from_any_step(losses, norms):
    policy = GuardPolicy()
    for loss, norm in zip(losses, norms, strict=False):
        decision = policy.before_step(norm)
        assert decision is None or 0.0 < decision.gradient_scale <= 1.0
        assert policy.bounds.lr_scale <= policy.lr_scale <= 1.0
        policy.after_step(loss)
    other = GuardPolicy()
    other.load_state_dict(policy.state_dict())
    assert other.before_step(1.0) == policy.before_step(1.0)
