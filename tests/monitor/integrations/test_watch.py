"""What every integration does at a step."""

import torch

from stabletune.monitor.integrations.watch import Watch


def test_what_fails_ends_the_watch_gives_the_optimizer_back_and_is_logged_once(caplog):
    watch = Watch(every=1, guard="act")
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(model.parameters())
    watch.begin(model, optimizer)
    uneven = [torch.tensor(1.0), torch.ones(2)]
    for _ in range(2):
        watch.step(uneven, lambda: model(torch.ones(1, 2)).sum())
    assert watch.readings == []
    assert caplog.text.count("this training is no longer watched") == 1
    Watch(guard="act").begin(model, optimizer)  # an optimizer can have one guard only


def test_a_watch_that_has_failed_watches_the_next_training(caplog):
    watch = Watch(every=1)
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(model.parameters())
    for losses, n_readings in (([torch.tensor(1.0), torch.ones(2)], 0), ([torch.tensor(1.0)], 1)):
        watch.begin(model, optimizer)
        model(torch.ones(1, 2)).square().sum().backward()
        optimizer.step()
        watch.step(losses, lambda: model(torch.ones(1, 2)).square().sum())
        assert len(watch.readings) == n_readings
