"""Item 2: where in the (beta1, beta2) plane Adam spikes on L = θ²/2, beside the border of Tang et al. (2026)."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

from examples.paper.figure import save
from examples.paper.findings import Finding, holds, near, number, shown, within
from examples.paper.trace import CPU, Setting, train
from stabletune.trial.workloads import quadratic

TITLE = "2. The (beta1, beta2) plane of the quadratic"
ABOUT = """The quadratic of item 1 for a grid of betas, lr 0.1. Every cell is run past its burn-in; then either S stays
below 1 and θ swings evenly around 0, where the largest loss is twice the median, or S crosses 1 again and again and
bursts follow. Tang et al. (2026) put the border at 1 - beta2 = 15.6 (1 - beta1)^3.07 for this quadratic. Here it is
the largest 1 - beta2 down from which every cell crosses; a cell crosses if S is above 1 at any step after the burn-in.
The plane is computed by Adam written out in numpy, all cells at once; the first finding holds that twin to
`InstrumentedAdamW` and `StabilityMonitor` at three cells.

Tried beside: with a burn-in of 3,000 steps in place of 15,000 the border bends upwards above beta1 = 0.9 (0.005 in
place of 0.002 at 0.95), since the burst of the start has not died away. The crossings at beta1 .9, beta2 .98 that an
earlier run showed do not appear after 1,000, 3,000 or 15,000 steps; those at .985 do."""
LR, EPS = 0.1, 1e-8
BURN_IN, STEPS = 15_000, 20_000
TANG = (15.6, 3.07)
FITTED = (0.7, 0.95)
"""Where the power law is fitted: below, the border leaves the range of beta2; above, bursts outlast the burn-in."""
LOWEST, HIGHEST = 0.0015, 0.7
N_TWIN_STEPS = 300


@dataclasses.dataclass(frozen=True)
class Plane:
    """Per cell, shape (beta1, beta2): the largest S and the largest loss over its median, both after the burn-in."""

    beta1: NDArray[np.float64]
    one_minus_beta2: NDArray[np.float64]
    largest_ratio: NDArray[np.float64]
    swing: NDArray[np.float64]

    @property
    def border(self) -> NDArray[np.float64]:
        """Per beta1 the largest 1 - beta2 from which down every cell crosses; nan where even the smallest does not."""
        crosses = self.largest_ratio > 1
        n_crossing = np.where(crosses.all(axis=1), crosses.shape[1], np.argmin(crosses, axis=1))
        # half way, on the logarithmic grid, between the last cell that crosses and the first that does not
        grid = np.log(self.one_minus_beta2)
        middles = np.exp(np.concatenate([[np.nan], (grid[1:] + grid[:-1]) / 2, [np.nan]]))
        return np.asarray(middles[n_crossing])


class Quadratics:
    """Adam on L = θ²/2 from θ = 1, one cell for each pair of betas, all stepped at once."""

    def __init__(self, beta1: NDArray[np.float64], beta2: NDArray[np.float64]) -> None:
        self.beta1, self.beta2 = beta1, beta2
        self.theta, self.m, self.v = np.ones_like(beta1), np.zeros_like(beta1), np.zeros_like(beta1)
        self.step_count = 0

    def step(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Take a step; return the losses before it and S after it."""
        self.step_count += 1
        gradient = self.theta
        losses = 0.5 * gradient**2
        self.m = self.beta1 * self.m + (1 - self.beta1) * gradient
        self.v = self.beta2 * self.v + (1 - self.beta2) * gradient**2
        debias = 1 - self.beta1**self.step_count
        denominator = np.sqrt(self.v / (1 - self.beta2**self.step_count)) + EPS
        self.theta = self.theta - LR * self.m / debias / denominator
        return losses, LR / 2 * (1 - self.beta1) / (1 + self.beta1) / debias / denominator


def compute_plane(n_beta1: int, n_beta2: int, *, steps: int = STEPS, burn_in: int = BURN_IN) -> Plane:
    """Run a grid log-spaced in 1 - beta1 from 0.5 to 0.03 and in 1 - beta2 from 0.0015 to 0.7."""
    beta1, one_minus = 1 - np.geomspace(0.5, 0.03, n_beta1), np.geomspace(LOWEST, HIGHEST, n_beta2)
    columns, rows = np.meshgrid(beta1, 1 - one_minus, indexing="ij")
    cells = Quadratics(columns.ravel(), rows.ravel())
    largest_ratio = np.zeros(cells.theta.size)
    kept = np.empty((steps - burn_in, cells.theta.size), dtype=np.float32)
    for step in range(steps):
        losses, ratios = cells.step()
        if step >= burn_in:
            kept[step - burn_in] = losses
            np.maximum(largest_ratio, ratios, out=largest_ratio)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        swing = kept.max(axis=0) / np.median(kept, axis=0)
    return Plane(beta1, one_minus, largest_ratio.reshape(columns.shape), swing.reshape(columns.shape))


def reproduce(folder: Path, *, full: bool = False) -> list[Finding]:
    """Compute the plane, draw it with both borders, judge the border."""
    plane = compute_plane(48, 96) if full else compute_plane(24, 48)
    fit = fitted_border(plane)
    draw(plane, fit, folder / "reproduction_2.png")
    return [*twin_findings(), *border_findings(plane, fit)]


def fitted_border(plane: Plane) -> tuple[float, float]:
    """Fit 1 - beta2 = C (1 - beta1)^p to the border over ``FITTED``; return (C, p)."""
    used = (plane.beta1 >= FITTED[0] - 1e-9) & (plane.beta1 <= FITTED[1] + 1e-9) & np.isfinite(plane.border)
    exponent, intercept = np.polyfit(np.log(1 - plane.beta1[used]), np.log(plane.border[used]), 1)
    return float(np.exp(intercept)), float(exponent)


def border_findings(plane: Plane, fit: tuple[float, float]) -> list[Finding]:
    """Judge the fitted power law and the values at beta1 = 0.9."""
    factor, exponent = fit
    at_90 = Quadratics(np.full(3, 0.9), np.array([0.97, 0.98, 0.987]))
    largest = np.max([at_90.step()[1] for _ in range(STEPS)][BURN_IN:], axis=0)
    fitted = plane.beta1[(plane.beta1 >= FITTED[0]) & (plane.beta1 <= FITTED[1])]
    ours = np.interp(fitted, plane.beta1, np.log(plane.border))
    off = np.exp(np.abs(ours - np.log(TANG[0] * (1 - fitted) ** TANG[1])))
    return [
        near("exponent of the border, fitted for beta1 .7 to .95", exponent, TANG[1], tolerance=0.3, digits=3),
        shown("factor C of the border, same fit", measured=number(factor), expected=number(TANG[0])),
        near("beta2 of the border at beta1 .9, by the fit", 1 - factor * 0.1**exponent, 0.987, tolerance=0.005),
        within(
            "border against the published one, beta1 .7 to .95: largest factor apart",
            float(np.nanmax(off)),
            1.0,
            1.5,
            expected="1",
        ),
        holds(
            "beta1 .9: crossings at beta2 .97 / .98 / .987, after the burn-in",
            "no / yes / yes",
            measured=" / ".join("yes" if value > 1 else "no" for value in largest)
            + f" (S at most {' / '.join(number(float(value)) for value in largest)})",
            is_met=bool(largest[0] <= 1 < min(largest[1:])),
        ),
    ]


def twin_findings() -> list[Finding]:
    """Hold the twin to the package: the losses and S of three cells over 300 steps, at betas as different as can be."""
    pairs = [(0.5, 0.9), (0.9, 0.99), (0.95, 0.5)]
    cells = Quadratics(np.array([b1 for b1, _ in pairs]), np.array([b2 for _, b2 in pairs]))
    steps = [cells.step() for _ in range(N_TWIN_STEPS)]
    worst = 0.0
    for number_of_cell, (beta1, beta2) in enumerate(pairs):
        setting = Setting(lr=LR, beta1=beta1, beta2=beta2)
        trace = train(quadratic.build(0, CPU, dtype="float64"), setting, steps=N_TWIN_STEPS, every=1)
        losses = np.array([step[0][number_of_cell] for step in steps])
        ratios = np.array([step[1][number_of_cell] for step in steps])
        worst = max(worst, float(np.abs(trace.losses - losses).max()))
        worst = max(worst, float(np.abs(trace.read("sharpness_ratio")[1] / ratios - 1).max()))
    return [within("the numpy twin against the package: largest error of loss and S", worst, 0.0, 1e-6, expected="0")]


def draw(plane: Plane, fit: tuple[float, float], path: Path) -> None:
    """Draw the swing of the loss as a map, with the measured, the fitted and the published border."""
    figure, axis = plt.subplots(figsize=(8.0, 5.4), layout="constrained")
    swing = np.log10(np.clip(np.nan_to_num(plane.swing, nan=1e6, posinf=1e6), 2, 1e6))
    mesh = axis.pcolormesh(1 - plane.beta1, plane.one_minus_beta2, swing.T, cmap="magma_r", vmin=np.log10(2), vmax=6)
    figure.colorbar(mesh, ax=axis, label="log10 (largest loss / median loss) after the burn-in")
    line = np.geomspace(0.03, 0.5, 50)
    axis.plot(
        line, TANG[0] * line ** TANG[1], "--", color="#1f77b4", linewidth=2, label="Tang et al.: 15.6 (1 - beta1)^3.07"
    )
    axis.plot(
        line,
        fit[0] * line ** fit[1],
        "-",
        color="#2e8b57",
        linewidth=1.5,
        label=f"fitted, beta1 .7 to .95: {fit[0]:.3g} (1 - beta1)^{fit[1]:.2f}",
    )
    axis.plot(1 - plane.beta1, plane.border, "o", color="#2e8b57", markersize=4, label="S crosses 1 at and below")
    axis.set(
        xscale="log", yscale="log", xlabel="1 - beta1", ylabel="1 - beta2", xlim=(0.03, 0.5), ylim=(LOWEST, HIGHEST)
    )
    axis.set_xticks([0.03, 0.05, 0.1, 0.2, 0.3, 0.5], labels=["0.03", "0.05", "0.1", "0.2", "0.3", "0.5"], minor=False)
    axis.set_xticks([], minor=True)
    figure.legend(loc="outside upper center", ncol=3, fontsize=8.5, frameon=False)
    save(figure, path)
