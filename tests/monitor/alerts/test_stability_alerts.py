"""Alerts in a real loop: they see what is there, change nothing, and no sink stops a training."""

import itertools
import logging

import pytest
import torch

from stabletune import InstrumentedAdamW, StabilityAlerts, StabilityMonitor
from stabletune.judgement.spikes import find_spikes
from stabletune.monitor.alerts.log_sink import LogSink
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
    assert before.count("unstable") > 0.5 * len(before)


def test_a_training_at_the_edge_alerts_a_few_times_for_each_spike_and_does_not_flap(run):
    losses, found = run
    assert len(found) <= 3 * len(find_spikes(losses).episodes) + 3


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
    train(800, sinks=[found.append], make=make)
    assert found


def train_on_batches(n_steps, *, bad_at=None, breaks_from=None, sees_batches=True, every=None):
    """Parameters, alerts and readings of a small classifier; one batch may be bad, the closure may break."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3))
    data = torch.randn(8, 32, 4)
    labels = (data.sum(-1).sign() + 1).long()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    monitor = StabilityMonitor(model, optimizer, every=every, overhead=0.15)
    found, readings = [], []
    alerts = StabilityAlerts(monitor, [found.append])
    for step in range(1, n_steps + 1):
        x, y = (-8.0 if step == bad_at else 1.0) * data[step % 8], labels[step % 8]

        def closure(x=x, y=y, step=step):
            if breaks_from is not None and step >= breaks_from:
                raise ValueError("no second time")
            return torch.nn.functional.cross_entropy(model(x), y)

        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        readings.append(monitor.step(loss, closure))
        alerts.step(loss, readings[-1], closure if sees_batches else None)
    return [p.detach() for p in model.parameters()], found, readings, monitor


def spiked(found):
    return next(alert for alert in found if alert.level == "spiked")


def test_a_bad_batch_is_named_where_its_closure_is_given():
    _, found, _, _ = train_on_batches(200, bad_at=150)
    assert (spiked(found).step, spiked(found).diagnosis.cause) == (150, "bad batch")
    assert spiked(found).sharpness_ratio_step == 150


def test_without_it_the_alert_says_that_the_batch_was_not_looked_at():
    _, found, _, _ = train_on_batches(200, bad_at=150, sees_batches=False)
    assert spiked(found).diagnosis.cause == "unexplained"
    assert "was not looked at again" in spiked(found).message


def test_a_closer_look_changes_nothing_of_the_training():
    ours, _, _, _ = train_on_batches(200, bad_at=150)
    theirs, _, _, _ = train_on_batches(200, bad_at=150, sees_batches=False)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_what_is_looked_at_is_paid_by_the_monitors_overhead():
    _, _, _, monitor = train_on_batches(1500, bad_at=150)
    assert monitor.overhead <= 0.15 * (1 + 100 / 1500)


def test_a_closure_that_fails_after_readings_that_succeeded_stops_no_training(caplog):
    _, found, readings, monitor = train_on_batches(300, bad_at=250, breaks_from=200, every=20)
    assert spiked(found).step == 250
    assert "ValueError: no second time" in monitor.note
    assert caplog.text.count("a reading failed and the training goes on") == 1
    assert caplog.text.count("no closer look at spikes any more") == 1
    assert [r.step for r in readings if r is not None] == list(range(20, 200, 20))
    assert len(readings) == 300


def test_losses_that_are_not_finite_for_long_are_looked_at_once_in_fifty_steps():
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    monitor = StabilityMonitor(model, optimizer)
    alerts = StabilityAlerts(monitor)
    calls = []
    for step in range(1, 201):
        x = torch.randn(8, 3)

        def closure(x=x, step=step):
            calls.append(step)
            return model(x).square().mean() * (float("nan") if step > 100 else 1.0)

        loss = closure()
        if step <= 100:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        alerts.step(loss.detach(), None, closure)
    looked_at = {step for step in calls if step > 100 and calls.count(step) > 2}
    assert len(looked_at) <= 10


@pytest.mark.parametrize("sink", [LogSink, "log", None])
def test_a_sink_that_cannot_be_called_is_refused(sink):
    model = torch.nn.Linear(3, 1)
    monitor = StabilityMonitor(model, torch.optim.Adam(model.parameters()))
    with pytest.raises(TypeError, match="sinks: each must be callable with an Alert, but sink 0 is"):
        StabilityAlerts(monitor, [sink])


def test_sinks_that_are_no_list_and_a_loss_that_is_no_number_are_refused():
    model = torch.nn.Linear(3, 1)
    monitor = StabilityMonitor(model, torch.optim.Adam(model.parameters()))
    with pytest.raises(TypeError, match="sinks: must be a list"):
        StabilityAlerts(monitor, print)
    with pytest.raises(ValueError, match="loss_floor: must be a finite number, but got nan"):
        StabilityAlerts(monitor, loss_floor=float("nan"))
    for loss, words in ((None, "got None"), (torch.ones(3), r"got a tensor of shape \(3,\)")):
        with pytest.raises(ValueError, match=f"loss: must be a number or a scalar tensor, but {words}"):
            StabilityAlerts(monitor).step(loss, None)


def test_a_closure_that_does_not_hold_its_batch_is_said_in_the_evidence():
    torch.manual_seed(0)
    model = torch.nn.Linear(8, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    monitor = StabilityMonitor(model, optimizer)
    found, now = [], {}
    alerts = StabilityAlerts(monitor, [found.append])

    class Holder:
        def loss(self):
            return (model(now["x"]) - now["y"]).square().mean()

    holder = Holder()
    for step in range(120):
        x = torch.randn(16, 8)
        now.update(x=x, y=x[:, :1] * (30.0 if step == 100 else 1.0))
        optimizer.zero_grad()
        loss = holder.loss()
        loss.backward()
        optimizer.step()
        alerts.step(loss, monitor.step(loss, holder.loss), holder.loss)
    assert "a closure that does not hold its own" in spiked(found).message
