import math

import numpy as np
import pytest

from stabletune.judgement.objective import objective_of, over_seeds, ratio_to_baseline


def test_final_loss_is_the_median_of_the_last_five_percent():
    losses = np.arange(100.0, 0.0, -1.0)
    assert objective_of("final_loss", losses) == 3.0


def test_loss_auc_is_the_mean_log_above_the_floor():
    losses = 2.0 + np.exp(np.array([1.0, 2.0, 3.0]))
    assert objective_of("loss_auc", losses, loss_floor=2.0) == pytest.approx(2.0)


def test_steps_to_target_is_the_first_step_whose_trailing_median_reaches_it():
    losses = np.array([1.0] * 50 + [0.1] * 50)
    assert objective_of("steps_to_target", losses, target=0.1) == 61  # the 11th low loss makes the median of 20 low
    assert objective_of("steps_to_target", losses, target=0.55) == 60


def test_steps_to_target_never_reached_is_twice_the_steps():
    assert objective_of("steps_to_target", np.ones(80), target=0.5) == 160


def test_over_seeds_is_the_median():
    assert over_seeds([5.0, 1.0, 2.0]) == 2.0


def test_ratio_for_loss_auc_is_the_exponential_of_the_difference():
    assert ratio_to_baseline("loss_auc", -2.0, -1.0) == pytest.approx(math.exp(-1.0))


def test_ratio_to_a_diverged_baseline_is_zero():
    assert ratio_to_baseline("final_loss", 0.3, math.inf) == 0.0
    assert ratio_to_baseline("final_loss", 0.3, 0.6) == pytest.approx(0.5)
