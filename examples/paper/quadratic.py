"""Item 1: Adam on L = θ²/2, where the curvature is 1 for ever and the loss spikes all the same."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from examples.paper.figure import draw_traces
from examples.paper.findings import Finding, holds, near, number, shown
from examples.paper.trace import CPU, Setting, Trace, train
from stabletune.trial.workloads import quadratic

TITLE = "1. One-dimensional quadratic"
ABOUT = """L = θ²/2 from θ = 1, lr 0.1, beta1 0.9, eps 1e-8, float64, measured at every step. The curvature never
changes: what moves is v̂ alone. Once θ has shrunk, v decays by beta2 a step, so that lr/√v̂ grows until it passes
38 = 2 (1 + beta1)/(1 - beta1), the edge of Adam with momentum (arXiv:2207.14484). The crossing comes first, the loss
follows. A large eps holds S below 1 for good, and gradient descent at the same lr never rises."""
LR = 0.1
EDGE = 38.0
"""2 (1 + b1) / (1 - b1) at b1 = 0.9: lr/√v̂ beyond it diverges on a curvature of 1."""


@dataclasses.dataclass(frozen=True)
class Observed:
    """A run with lr/√v̂ and v_t / v_(t-1) read from the optimizer's own state, beside what the monitor says."""

    trace: Trace
    rate_over_root: NDArray[np.float64]
    v_ratio: NDArray[np.float64]


def observe(beta2: float, steps: int, *, eps: float = 1e-8) -> Observed:
    """Train on the quadratic and read v at each step."""
    moments, v_hats = np.empty(steps), np.empty(steps)

    def read_state(step: int, optimizer: torch.optim.Optimizer) -> None:
        (state,) = optimizer.state.values()
        moments[step - 1] = float(state["exp_avg_sq"])
        v_hats[step - 1] = moments[step - 1] / (1 - beta2**step)

    training = quadratic.build(0, CPU, dtype="float64")
    trace = train(training, Setting(lr=LR, beta2=beta2, eps=eps), steps=steps, every=1, on_step=read_state)
    return Observed(trace, LR / np.sqrt(v_hats), np.concatenate([[np.nan], moments[1:] / moments[:-1]]))


def reproduce(folder: Path, *, full: bool = False) -> list[Finding]:
    """Run the three settings and gradient descent, draw them, and judge the closed forms."""
    steps = 3000 if full else 1500
    slow, fast, damped = observe(0.99, steps), observe(0.95, 500), observe(0.99, steps, eps=1e-2)
    columns = [("beta2 0.99", slow.trace), ("beta2 0.95", fast.trace), ("beta2 0.99, eps 0.01", damped.trace)]
    draw_traces(columns, folder / "reproduction_1.png")
    return [*slow_findings(slow), *other_findings(fast, damped), descent_finding(steps)]


def slow_findings(run: Observed) -> list[Finding]:
    """Judge the run at beta2 0.99."""
    crossing = run.trace.first_crossing()
    first = next((step for step in run.trace.doublings if crossing and step >= crossing), None)
    at = (crossing or 1) - 1
    ratio = run.trace.at("sharpness_ratio", at + 1)
    return [
        near("beta2 .99: first step with S > 1", crossing, 888, tolerance=0),
        near(
            "beta2 .99: lr/√v̂ there, from the optimizer's state", float(run.rate_over_root[at]), 38.15, tolerance=0.01
        ),
        near("beta2 .99: v_t / v_(t-1) there", float(run.v_ratio[at]), 0.99, tolerance=5e-5),
        near(
            "beta2 .99: S there by Hessian products, against lr/√v̂ / 38",
            ratio,
            float(run.rate_over_root[at]) / EDGE,
            tolerance=1e-4,
        ),
        shown(
            "beta2 .99: first step above twice the median of 50, after the crossing",
            measured=number(first),
            expected="after the crossing",
        ),
    ]


def other_findings(fast: Observed, damped: Observed) -> list[Finding]:
    """Judge the runs at beta2 0.95 and at eps 0.01."""
    _, values = damped.trace.read("sharpness_ratio")
    return [
        near("beta2 .95: first step with S > 1", fast.trace.first_crossing(), 216, tolerance=0),
        holds(
            "beta2 .99, eps .01: first step with S > 1",
            "never",
            measured=f"{number(damped.trace.first_crossing())} in {damped.trace.losses.size} steps, S at most "
            f"{number(float(values.max()), 2)}",
            is_met=damped.trace.first_crossing() is None,
        ),
    ]


def descent_finding(steps: int) -> Finding:
    """Judge gradient descent at the same lr, whose own ratio lr λ / 2 is 0.05."""
    training = quadratic.build(0, CPU, dtype="float64")
    optimizer = torch.optim.SGD(training.model.parameters(), lr=LR)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = training.loss_fn(training.model, next(iter(training.batches)))
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(float(loss.detach()))
    n_rises = int((np.diff(losses) > 0).sum())
    return holds(
        "gradient descent, same lr: steps on which the loss rises",
        "0",
        measured=f"{n_rises} of {steps}",
        is_met=n_rises == 0,
    )
