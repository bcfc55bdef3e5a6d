"""Item 3: Adam on L = x^k/k with k above 2, where the loss falls exponentially without a spike."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch

from examples.paper.figure import draw_traces
from examples.paper.findings import Finding, holds, near
from examples.paper.trace import Setting, Trace, train
from stabletune.trial.training import Training

TITLE = "3. Power laws"
ABOUT = """L = x^k/k from x = 1, lr 1e-3, beta1 0.9, beta2 0.93, eps 0, float64 (arXiv:2603.09581). Once v is decoupled
it falls by beta2 a step, and x follows so that lr x^(k-2)/√v̂ stays constant: the curvature falls as fast as √v̂ and S
settles. Hence ln L falls by k |ln beta2| / (2 (k - 2)) a step, which the fit must give. S stays below 1: a decoupled v̂
alone makes no spike where the curvature falls with it."""
LR, BETA2 = 1e-3, 0.93
FIT_FROM = 0.6
"""The slope is fitted on what follows this share of the run, when the transient is over."""


class Power(torch.nn.Module):
    """x^k/k of one parameter x, which starts at 1."""

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = k
        self.x = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))

    def forward(self) -> torch.Tensor:
        """Return the loss."""
        return self.x.pow(self.k).sum() / self.k


def run(k: int, steps: int) -> Trace:
    """Train on x^k/k, measured at every tenth step."""
    # no batch is needed: the loss is a function of the parameter alone
    training = Training(model=Power(k), loss_fn=lambda model, batch: model(), batches=[None], loss_floor=-1e-300)
    return train(training, Setting(lr=LR, beta2=BETA2, eps=0.0), steps=steps, every=10)


def slope(trace: Trace) -> float:
    """The least-squares slope of ln L per step over the last part of the run."""
    first = round(FIT_FROM * trace.losses.size)
    steps = np.arange(first, trace.losses.size)
    return float(np.polyfit(steps, np.log(trace.losses[first:]), 1)[0])


def predicted_slope(k: int) -> float:
    """The closed form k ln(b2) / (2 (k - 2)): x^(k-2) stays proportional to √v, which falls by √b2 a step."""
    return k * math.log(BETA2) / (2 * (k - 2))


def reproduce(folder: Path, *, full: bool = False) -> list[Finding]:
    """Fit both slopes, draw both runs."""
    steps = 4000 if full else 2500
    traces = {k: run(k, steps) for k in (4, 6)}
    columns = [(f"x^{k}/{k}", trace) for k, trace in traces.items()]
    draw_traces(columns, folder / "reproduction_3.png", has_log_ratio=True)
    return [finding for k, trace in traces.items() for finding in judge(k, trace)]


def judge(k: int, trace: Trace) -> list[Finding]:
    """Judge one run against the published slope, the closed form, and the claim that nothing spikes."""
    published = {4: -0.0726, 6: -0.0544}[k]
    return [
        near(f"k = {k}: slope of ln L per step", slope(trace), published, tolerance=5e-4, digits=3),
        near(f"k = {k}: the same against k ln(beta2) / (2 (k-2))", slope(trace), predicted_slope(k), tolerance=5e-4),
        holds(
            f"k = {k}: spikes, by either definition",
            "0",
            measured=str(len(trace.episodes) + len(trace.doublings)),
            is_met=not trace.episodes and not trace.doublings,
        ),
    ]
