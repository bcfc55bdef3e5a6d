"""Item 7: small networks on scikit-learn's data; the digits autoencoder is the negative control."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits

from examples.paper.figure import draw_traces
from examples.paper.findings import Finding, holds, near, number, shown, within
from examples.paper.trace import CPU, Setting, Trace, n_preceded, train
from stabletune.trial.training import Training
from stabletune.trial.workloads import diabetes_mlp, digits_autoencoder, digits_cnn

TITLE = "7. Small networks on scikit-learn's data"
ABOUT = """The diabetes MLP (two tanh layers of 64, full batch, float32, lr 0.01, beta2 0.999): expected is one earlier
run, whose loss jumped from 1.5e-3 to 7e-2 at step 571 with S = 1.05 and a staleness of 118. Another start and another
order of summation move the step, so the first spike of more than tenfold is looked for within 150 steps of it.
The digits autoencoder (full batch, lr 0.01, beta2 0.95) is the negative control: it rests at the edge with S between
0.95 and 1.17 for 2,000 steps and does not spike, since its v̂ follows (staleness 1 to 10). A rule that stops at S > 1
would kill it. Its largest S depends on how often one looks: 1.15 at every tenth step, as in the default mode, and more
at every second, as in the full one.

The digits CNN is the paper's kind of network: the built-in one with BatchNorm, cross-entropy and minibatches of 64
stays calm at the defaults, and a full-batch one with tanh and squared error spikes at lr 0.03."""
SETTLED = 300
"""Steps until the autoencoder has reached the edge."""


def reproduce(folder: Path, *, full: bool = False) -> list[Finding]:
    """Run the four networks and draw those measured at each step or nearly."""
    diabetes = train(diabetes_mlp.build(0, CPU), Setting(lr=0.01, beta2=0.999), steps=700, every=1)
    autoencoder = train(
        digits_autoencoder.build(0, CPU), Setting(lr=0.01, beta2=0.95), steps=2000, every=2 if full else 10
    )
    spiking = train(build_cnn(0), Setting(lr=0.03, beta2=0.999), steps=600 if full else 500, every=1 if full else 3)
    calm = train(digits_cnn.build(0, CPU), Setting(lr=1e-3, beta2=0.999), steps=3000 if full else 1000)
    draw_traces([("diabetes MLP", diabetes), ("digits autoencoder", autoencoder)], folder / "reproduction_7.png")
    draw_traces([("digits CNN, squared error, full batch", spiking)], folder / "reproduction_7_cnn.png")
    return [*diabetes_findings(diabetes), *autoencoder_findings(autoencoder), *cnn_findings(spiking, calm)]


def diabetes_findings(trace: Trace) -> list[Finding]:
    """Judge the first spike above tenfold."""
    episode = next((e for e in trace.episodes if e.worst_ratio > 10), None)
    if episode is None:
        return [holds("diabetes MLP: a spike above tenfold", "step 571", measured="none", is_met=False)]
    before = trace.losses[max(0, episode.start - 50) : episode.start]
    steps, staleness = trace.read("v_hat_staleness")
    leading = staleness[(steps > episode.start - 20) & (steps <= episode.start)]
    return [
        near("diabetes MLP: first spike above tenfold", episode.start, 571, tolerance=150),
        near("diabetes MLP: S at its start", trace.at("sharpness_ratio", episode.start), 1.05, tolerance=0.02),
        within(
            "diabetes MLP: largest staleness in the 20 steps before",
            float(leading.max()),
            118.0,
            float("inf"),
            expected="118 on the way",
        ),
        within(
            "diabetes MLP: median loss of the 50 steps before",
            float(np.median(before)),
            5e-4,
            4.5e-3,
            expected="1.5e-3",
        ),
        within(
            "diabetes MLP: worst loss of the spike",
            float(trace.losses[episode.start - 1 : episode.end].max()),
            2.3e-2,
            0.21,
            expected="7e-2",
        ),
    ]


def autoencoder_findings(trace: Trace) -> list[Finding]:
    """Judge that S rests at the edge, v̂ is fresh and nothing spikes."""
    steps, ratios = trace.read("sharpness_ratio")
    _, staleness = trace.read("v_hat_staleness")
    settled, fresh = ratios[steps > SETTLED], staleness[-ratios[steps > SETTLED].size :]
    low, middle, high = np.quantile(fresh, [0.05, 0.5, 0.95])
    name = "digits autoencoder, 2,000 steps"
    return [
        holds(f"{name}: spikes", "0", measured=str(len(trace.episodes)), is_met=not trace.episodes),
        near(f"{name}: largest S after step 300", float(settled.max()), 1.17, tolerance=0.05),
        near(f"{name}: 5 % quantile of S", float(np.quantile(settled, 0.05)), 0.95, tolerance=0.03),
        within(f"{name}: share of readings with S > 1", float((settled > 1).mean()), 0.2, 1.0, expected="at the edge"),
        within(f"{name}: 95 % quantile of the staleness", float(high), 0.0, 10.0, expected="1 to 10"),
        shown(
            f"{name}: 5 % quantile and median of the staleness",
            measured=f"{number(float(low))}, {number(float(middle))}",
            expected="1 to 10",
        ),
    ]


def cnn_findings(spiking: Trace, calm: Trace) -> list[Finding]:
    """Judge that crossings precede the spikes of the one and that the other has none."""
    starts = [episode.start for episode in spiking.episodes]
    preceded = n_preceded(starts, spiking.crossings("gradient_curvature_ratio"))
    return [
        holds(
            "digits CNN, squared error, full batch: spikes with a gradient-curvature crossing",
            "all",
            measured=f"{preceded} of {len(starts)}",
            is_met=bool(starts) and preceded == len(starts),
        ),
        shown(
            "digits CNN, squared error, full batch: largest S in the 20 steps before each spike",
            measured=", ".join(number(largest_before(spiking, start)) for start in starts) or "no spike",
            expected="above 1",
        ),
        holds(
            f"digits CNN, BatchNorm, minibatches, {calm.losses.size} steps: spikes",
            "0",
            measured=str(len(calm.episodes)),
            is_met=not calm.episodes,
        ),
    ]


def largest_before(trace: Trace, start: int) -> float:
    """The largest S read in the 20 steps up to a spike's first."""
    steps, ratios = trace.read("sharpness_ratio")
    return float(ratios[(steps > start - 20) & (steps <= start)].max())


def build_cnn(seed: int, *, channels: int = 8, n_images: int = 500) -> Training:
    """Build two tanh convolutions and a linear layer on one-hot targets, full batch."""
    digits = load_digits()
    images = torch.tensor(digits.images[:n_images] / 16.0).float().unsqueeze(1)
    targets = torch.nn.functional.one_hot(torch.tensor(digits.target[:n_images]), 10).float()
    torch.manual_seed(seed)
    layers: list[torch.nn.Module] = []
    for n_inputs, n_outputs in itertools.pairwise([1, channels, 2 * channels]):
        layers += [torch.nn.Conv2d(n_inputs, n_outputs, 3, padding=1), torch.nn.Tanh(), torch.nn.AvgPool2d(2)]
    model = torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(8 * channels, 10))
    return Training(
        model=model,
        loss_fn=lambda model, batch: torch.nn.functional.mse_loss(model(batch[0]), batch[1]),
        batches=[(images, targets)],
    )
