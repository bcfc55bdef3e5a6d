import math

import numpy as np
import pytest

from stabletune.errors import LossFloorError
from stabletune.judgement.spikes import find_spikes, olmo_spike_score
from tests.reference.spike_scores import naive_scores


def decaying(steps: int = 1000, noise: float = 0.01, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return np.exp(-np.arange(steps) / 400.0 + noise * generator.standard_normal(steps))


def test_the_score_foretold_for_a_level_is_the_score_it_gets():
    losses = decaying(300, noise=0.05)
    losses[200:206] *= 3.0
    detector = find_spikes([], loss_floor=-0.5)
    for step, loss in enumerate(losses):
        foretold = detector.score_of(loss + 0.5)
        assert math.isnan(foretold) if step < 10 else foretold == detector.update(loss)
        if step < 10:
            detector.update(loss)
    assert detector.worst_score > 1.0


def test_scores_equal_a_naive_twin_on_a_noisy_run_with_spikes():
    losses = decaying(400, noise=0.05)
    losses[150:156] *= 3.0
    losses[300] *= 1.6
    twin = naive_scores(losses)
    detector = find_spikes(losses[:0])
    scores = [detector.update(loss) for loss in losses]
    np.testing.assert_allclose(scores, twin, rtol=1e-9, atol=1e-12)


def test_scores_equal_the_twin_above_a_loss_floor():
    losses = decaying(250, noise=0.05) + 2.0
    losses[200] += 0.5
    detector = find_spikes([], loss_floor=2.0)
    scores = [detector.update(loss) for loss in losses]
    np.testing.assert_allclose(scores, naive_scores(losses, 2.0), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.1])
def test_a_healthy_decay_has_no_spike(noise):
    assert find_spikes(decaying(2000, noise)).episodes == []


def test_a_jump_is_one_episode_with_its_height_and_length():
    losses = decaying()
    losses[500:510] *= 5.0
    (episode,) = find_spikes(losses).episodes
    assert episode.start == 501  # steps count from 1
    assert episode.end == 510
    assert episode.steps_lost == 10
    # The median of the hundred steps before lags the decay by half a window: exp(-50 / 400).
    assert episode.worst_ratio == pytest.approx(5.0 * math.exp(-50.5 / 400), rel=0.05)
    assert episode.severity == pytest.approx(10 * math.log(episode.worst_ratio), rel=0.1)


def test_recurrent_spikes_are_all_found_though_they_inflate_every_spread_of_levels():
    losses = decaying(3000)
    starts = range(300, 3000, 120)
    for start in starts:
        losses[start : start + 30] *= np.geomspace(60.0, 1.2, 30)
    found = find_spikes(losses)
    assert [episode.start for episode in found.episodes] == [start + 1 for start in starts]
    assert olmo_spike_score(losses) < 0.002


def test_spikes_less_than_fifty_steps_apart_are_one_episode():
    losses = decaying()
    losses[500] *= 4.0
    losses[540] *= 4.0
    losses[700] *= 4.0
    assert [episode.start for episode in find_spikes(losses).episodes] == [501, 701]


def test_noise_raises_the_level_at_which_a_jump_counts():
    calm, noisy = decaying(noise=0.001), decaying(noise=0.2)
    calm[500] *= 2.0
    noisy[500] *= 2.0
    assert len(find_spikes(calm).episodes) == 1
    assert find_spikes(noisy).episodes == []


def test_a_loss_far_below_its_start_is_judged_against_the_floor():
    losses = np.full(400, 1e-9)
    losses[:10] = 1.0
    losses[300] = 9e-5  # 90,000 times its median, but under the floor of 1e-4 of the initial loss
    assert find_spikes(losses).episodes == []
    losses[300] = 1e-2
    assert len(find_spikes(losses).episodes) == 1


def test_a_loss_that_is_not_finite_is_a_divergence_and_no_episode():
    found = find_spikes([*decaying(50), math.nan])
    assert found.diverged
    assert found.episodes == []


def test_a_loss_at_its_floor_is_a_named_error_with_the_step():
    with pytest.raises(LossFloorError, match=r"step 3: .* loss_floor = 0, but got 0.0"):
        find_spikes([1.0, 0.5, 0.0])


def test_olmo_score_is_the_share_of_steps_seven_deviations_up():
    losses = 1.0 + 0.01 * np.random.default_rng(0).standard_normal(2000)
    losses[[1200, 1500]] = 2.0
    assert olmo_spike_score(losses) == pytest.approx(2 / 2000)


def test_a_first_loss_that_is_not_finite_is_no_change_of_the_loss():
    losses = (40.0 * decaying(30, noise=0.05)).tolist()
    alone, after = find_spikes([]), find_spikes([math.nan])
    assert [after.update(loss) for loss in losses] == [alone.update(loss) for loss in losses]


def test_there_is_no_baseline_before_ten_losses_are_finite():
    detector = find_spikes([math.nan] * 12)
    assert math.isnan(detector.baseline) and math.isnan(detector.score_of(1.0))
    for _ in range(10):
        assert detector.update(2.0) == 0.0
    assert detector.baseline == 2.0


@pytest.mark.parametrize("level", [5e-324, 1e-300, 1e300, 1.7e308])
@pytest.mark.parametrize("usual", [1e-300, 1.0, 1e20, 1.7e308])
def test_losses_at_the_ends_of_float64_are_judged_like_others(level, usual):
    detector = find_spikes([*[usual] * 20, level, *[usual] * 20])
    assert bool(detector.episodes) == (usual < 1e100 < level)
    assert not math.isnan(detector.score)
