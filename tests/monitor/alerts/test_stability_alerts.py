"""Alerts in a real loop: they see what is there, change nothing, and no sink stops a training."""

import itertools
import logging

import pytest
import torch

from stabletune import InstrumentedAdamW, StabilityAlerts, StabilityMonitor
from stabletune.judgement.spikes import find_spikes
from stabletune.trial.workloads.tanh_regression import build


def train(n_steps, *, lr=0.02, beta2=0.99, sinks=None, overhead=0.15, make=torch.optim.Adam, loss_floor=0.0, shift=0.0):
    """Losses and alerts of full-batch tanh regression, which spikes at these settings."""
    torch.manual_seed(0)
    training = build(0, torch.device("cpu"))
    (batch,) = training.batches
    optimizer = make(training.model.parameters(), lr=lr, betas=(0.9, beta2))
    watches = sinks is not None
    monitor = StabilityMonitor(training.model, optimizer, overhead=overhead)
    alerts = StabilityAlerts(monitor, sinks or (), loss_floor=loss_floor) if watches else None
    losses = []
    for _ in range(n_steps):
        optimizer.zero_grad()
        loss = training.loss_fn(training.model, batch) - shift
        loss.backward()
        optimizer.step()
        if alerts is not None:
            alerts.step(loss, monitor.step(loss, lambda: training.loss_fn(training.model, batch)))
        losses.append(float(loss.detach()))
    if alerts is not None:
        alerts.close()
    return losses


@pytest.fixture(scope="module")
def run():
    found = []
    return train(1500, sinks=[found.append]), found


def test_every_spike_of_a_run_is_an_alert_with_a_cause(run):
    losses, found = run
    episodes = find_spikes(losses).episodes
    spiked = [alert for alert in found if alert.level == "spiked"]
    assert episodes
    assert [alert.step for alert in spiked] == [episode.start for episode in episodes]
    assert all(alert.diagnosis is not None for alert in spiked)


def test_most_of_them_were_announced(run):
    _, found = run
    before = [earlier.level for earlier, later in itertools.pairwise(found) if later.level == "spiked"]
    assert before.count("calm") < len(before)


def test_the_training_is_bit_for_bit_what_it_is_without(run):
    losses, _ = run
    assert train(1500) == losses


def test_a_sink_that_raises_is_logged_once_and_the_others_and_the_training_go_on(caplog):
    def broken(alert):
        raise RuntimeError("no network")

    found = []
    losses = train(1500, sinks=[broken, found.append])
    assert len(losses) == 1500
    assert len(found) > 1
    assert caplog.text.count("the training goes on") == 1
    assert "no network" in caplog.text


def test_a_loss_at_its_floor_ends_the_judging_and_not_the_training(caplog):
    caplog.set_level(logging.WARNING)
    found = []
    assert len(train(300, sinks=[found.append], shift=10.0)) == 300
    assert "no more alerts" in caplog.text


def test_a_lower_floor_keeps_it_judging(caplog):
    train(60, sinks=[lambda alert: None], shift=10.0, loss_floor=-20.0)
    assert "no more alerts" not in caplog.text


@pytest.mark.parametrize("make", [InstrumentedAdamW, torch.optim.AdamW, torch.optim.NAdam])
def test_other_adams_are_judged_by_their_own_settings(make):
    found = []
    train(400, sinks=[found.append], make=make)
    assert found
