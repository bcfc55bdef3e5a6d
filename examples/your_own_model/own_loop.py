"""The same task with a loop of its own: what to call from a Trainer, a Lightning module or any script."""

from __future__ import annotations

import itertools

import torch
from torch.utils.data import DataLoader
from workload import ResidualNetwork, decayed_apart, load_data, loss_fn

import stabletune


def train(trial: stabletune.Trial, *, width: int = 64, batch_size: int = 64, dropout: float = 0.0) -> None:
    train_data, held_out = load_data()
    order = torch.Generator().manual_seed(trial.seed)
    loader = DataLoader(train_data, batch_size=batch_size, shuffle=True, drop_last=True, generator=order)
    model = ResidualNetwork(n_inputs=10, width=width, dropout=dropout).to(trial.device)

    trial.watch(model)
    optimizer = trial.build_optimizer(decayed_apart(model))  # this trial's lr, betas, clipping
    schedule = trial.build_schedule(optimizer)
    epochs = itertools.chain.from_iterable(itertools.repeat(loader))
    for _, batch in zip(range(trial.steps), epochs, strict=False):
        batch = tuple(tensor.to(trial.device) for tensor in batch)
        optimizer.zero_grad()
        loss = loss_fn(model, batch)
        loss.backward()
        optimizer.step()
        schedule.step()
        if trial.step(loss, lambda batch=batch: loss_fn(model, batch)):
            break  # the trial is over: its steps are done, or it is not worth going on

    model.eval()
    x, y = (tensor.to(trial.device) for tensor in held_out.tensors)
    with torch.no_grad():
        trial.report_eval(float(torch.sqrt(loss_fn(model, (x, y)))))
