"""Limits of pace against the rule written out, and the losses they are in."""

import dataclasses
import math

import numpy as np
import pytest

from stabletune.config import load_config
from stabletune.study.prediction.outlook import Outlook
from stabletune.study.prediction.pace import pace_limits
from tests.study.prediction.seen import seen

LONG = (("full_steps: 150", "full_steps: 2500"), ("trial_steps: 60", "trial_steps: 500"))
STEPS = (39, 78, 156, 312)


def careful(losses, **changes):
    """Clean trials at low rates, one for each log loss, each a tenth lower at every mark."""
    curves = [[(step, loss - 0.1 * k) for k, step in enumerate(STEPS)] for loss in losses]
    return [
        dataclasses.replace(seen(1e-3, (0.1, 0.5), 500, curve=curve, number=n), **changes)
        for n, curve in enumerate(curves)
    ]


def limits_of(write_config, trials, *changes):
    config = load_config(write_config(*LONG, *changes))
    return dict(pace_limits(config, Outlook(config, trials)))


@pytest.mark.parametrize("n", [5, 20, 90])
def test_of_the_peers_themselves_about_a_fifth_would_go_on(write_config, n):
    losses = np.random.default_rng(n).normal(size=n)
    limit = limits_of(write_config, careful(losses))[39]
    assert np.mean(losses <= math.log(limit)) == pytest.approx(0.2, abs=1.0 / n)


def test_a_limit_is_a_loss_that_includes_the_floor(write_config):
    losses = [-3.0, -2.0, -1.0, 0.0, 1.0, 2.0]
    plain = limits_of(write_config, careful(losses))
    raised = limits_of(write_config, careful(losses, loss_floor=1.5))
    assert plain[39] == pytest.approx(math.exp(-2.0))
    assert [raised[step] - plain[step] for step in STEPS] == pytest.approx([1.5] * 4)


def test_a_step_that_fewer_than_four_peers_came_to_has_no_limit(write_config):
    trials = careful([-3.0, -2.0, -1.0, 0.0, 1.0])
    cut = [dataclasses.replace(run, steps=100, curve=run.curve[:2]) for run in trials[:2]]
    assert list(limits_of(write_config, [*cut, *trials[2:]])) == [39, 78]
    assert limits_of(write_config, trials[:3]) == {}


def test_a_trial_far_faster_but_likely_to_spike_leaves_the_limits_as_they_are(write_config):
    trials = careful([-3.0, -2.0, -1.0, 0.0, 1.0])
    spiked = [seen(0.09, (0.95, 0.5), 100, True, [(39, -20.0), (78, -20.0)]) for _ in range(10)]
    warned = [seen(0.09, (0.95, 0.5), 500, False, [(step, -20.0) for step in STEPS], risk=0.9) for _ in range(8)]
    assert limits_of(write_config, [*trials, *spiked, *warned]) == limits_of(write_config, trials)


@pytest.mark.parametrize(
    ("ratios", "first"),
    [
        ("{choices: [0.0, 0.02]}", 78),
        ("{choices: [0.0, 0.2]}", None),
        ("{low: 0.0, high: 0.05, scale: linear}", 156),
    ],
)
def test_there_is_no_limit_before_the_longest_warm_up_that_is_searched(write_config, ratios, first):
    space = ("  beta2:", f"  warmup_ratio: {ratios}\n  beta2:")
    n_more = 2 if "choices" in ratios else 1
    trials = careful([-3.0, -2.0, -1.0, 0.0, 1.0], place=(0.1, *[0.3] * n_more, 0.5))
    assert next(iter(limits_of(write_config, trials, space)), None) == first


def test_a_limit_never_lies_beyond_the_length_of_a_trial(write_config):
    trials = careful([-3.0, -2.0, -1.0, 0.0, 1.0])
    config = load_config(write_config(LONG[0], ("trial_steps: 60", "trial_steps: 156")))
    assert [step for step, _ in pace_limits(config, Outlook(config, trials))] == [39, 78]
