"""Shares of what each hyperparameter explains, where one is built to matter and the other not to."""

import numpy as np
import pytest

from stabletune.config import load_config
from stabletune.study.prediction.importance import FEWEST, importance
from stabletune.study.prediction.outlook import Outlook
from stabletune.study.prediction.place import place_of
from tests.study.prediction.seen import seen


def found(write_config, n, *, spikes_above=1.0, falls_by=8.0):
    """Of trials whose loss at the end depends on lr alone, and which spike above a share of its range."""
    config = load_config(write_config())
    rng, trials = np.random.default_rng(0), []
    for number in range(n):
        across, up = rng.random(2)
        settings = {"lr": 10.0 ** (-3.0 + 2.0 * across), "beta2": 1.0 - 10.0 ** (-1.0 - 2.0 * up)}
        run = seen(
            place=place_of(settings, config.search_space),
            number=number,
            spiked=across > spikes_above,
            curve=[(38, -falls_by * across), (60, -falls_by * across)],
        )
        trials.append((settings, run))
    return importance(config, Outlook(config, [run for _, run in trials]), trials)


def test_what_the_loss_and_the_spikes_depend_on_explains_most(write_config):
    shares = found(write_config, 60, spikes_above=0.6)
    assert shares["objective"]["lr"] > 0.7 > 0.3 > shares["objective"]["beta2"]
    assert shares["stability"]["lr"] > 0.7 > 0.3 > shares["stability"]["beta2"]
    assert sum(shares["objective"].values()) == pytest.approx(1.0, abs=0.01)
    assert shares["n_trials"]["stability"] == 60 > shares["n_trials"]["objective"]


def test_too_few_trials_say_nothing(write_config):
    shares = found(write_config, FEWEST - 1)
    assert (shares["objective"], shares["stability"]) == (None, None)
    assert shares["n_trials"]["objective"] == FEWEST - 1


def test_trials_outside_the_space_do_not_count(write_config):
    config = load_config(write_config())
    outside = [({"lr": 5.0, "beta2": 0.99}, seen(place=(1.5, 0.5), number=n)) for n in range(20)]
    shares = importance(config, Outlook(config, [run for _, run in outside]), outside)
    assert shares["n_trials"] == {"objective": 0, "stability": 0}


def test_the_same_trials_give_the_same_shares(write_config):
    assert found(write_config, 30) == found(write_config, 30)
