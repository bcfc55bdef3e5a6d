"""InstrumentedAdamW against torch's AdamW: time of one step, interleaved, as a ratio."""

import statistics

import torch
from timing import figure, seconds_of

from stabletune import InstrumentedAdamW

torch.set_num_threads(1)


def stepper(kind, **options):
    torch.manual_seed(0)
    model = torch.nn.Sequential(*[layer for _ in range(6) for layer in (torch.nn.Linear(128, 128), torch.nn.Tanh())])
    optimizer = kind(model.parameters(), lr=1e-3, **options)
    model(torch.randn(64, 128)).square().mean().backward()

    def steps():
        for _ in range(50):
            optimizer.step()

    steps()
    return steps


def ratio(ours, theirs):
    pairs = [(seconds_of(ours, 3), seconds_of(theirs, 3)) for _ in range(15)]
    return statistics.median(a / b for a, b in pairs)


for flags in ({}, {"foreach": True}, {"fused": True}):
    name = " ".join(f"{k}={v}" for k, v in flags.items()) or "default"
    value = ratio(stepper(InstrumentedAdamW, **flags), stepper(torch.optim.AdamW, **flags))
    figure(f"step of InstrumentedAdamW / AdamW, {name}", value, "", "about 1")
MITIGATIONS = {
    "max_grad_norm": 1.0,
    "update_clip": 1.0,
    "second_moment_clip": 1.0,
    "second_moment_reset": 5.0,
    "beta2_exponent": 0.8,
}
for name, setting in MITIGATIONS.items():
    value = ratio(stepper(InstrumentedAdamW, **{name: setting}), stepper(torch.optim.AdamW))
    figure(f"step with {name}={setting:g} / AdamW", value, "")
