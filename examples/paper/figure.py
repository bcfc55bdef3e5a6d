"""One figure per experiment: loss, both ratios against the edge, v̂ staleness and alignment on one time axis."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.patches import Patch
from PIL import Image

from examples.paper.trace import Trace

LOSS, SHARPNESS, GRADIENT, STALENESS, ALIGNMENT = "#222222", "#c0392b", "#7fb3e0", "#7d3c98", "#2e8b57"
SHADE: Mapping[str, Any] = {"color": "#f5b041", "alpha": 0.4, "linewidth": 0}
WIDTHS = {1: 8.0, 2: 4.6, 3: 3.6}
"""Inches of a column, by the number of columns."""
DOTS_PER_INCH = 100
N_COLORS = 255


def draw_traces(
    columns: Sequence[tuple[str, Trace]],
    path: Path,
    *,
    window: tuple[int, int] | None = None,
    has_log_ratio: bool = False,
) -> None:
    """Draw runs side by side, each as four panels on its own time axis, and write the picture.

    Args:
        columns: a title and a run for each column.
        path: where the PNG goes.
        window: the first and the last step shown; all of them by default.
        has_log_ratio: whether the ratios are drawn on a logarithmic scale.
    """
    n_columns = len(columns)
    size = (WIDTHS[n_columns] * n_columns, 7.0)
    figure, grid = plt.subplots(
        4, n_columns, figsize=size, sharex="col", squeeze=False, height_ratios=(1.4, 1.3, 1, 1), layout="constrained"
    )
    for number, (title, trace) in enumerate(columns):
        _draw_column(list(grid[:, number]), trace, window or (1, trace.losses.size), has_log_ratio=has_log_ratio)
        grid[0, number].set_title(title, fontsize=10)
    for axis, label in zip(grid[:, 0], ("loss", "ratio to the edge", "v̂ staleness", "alignment"), strict=True):
        axis.set_ylabel(label)
    figure.align_ylabels(grid[:, 0])
    handles, _ = grid[1, 0].get_legend_handles_labels()
    if any(trace.episodes for _, trace in columns):
        handles.append(Patch(label="spike", **SHADE))
    # above the panels, so that it never lies over a curve
    figure.legend(handles=handles, loc="outside upper center", ncol=4, fontsize=9, frameon=False)
    save(figure, path)


def save(figure: Any, path: Path) -> None:
    """Write a figure as a PNG of few colors, and close it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=DOTS_PER_INCH, format="png")
    plt.close(figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.open(buffer).convert("RGB").quantize(N_COLORS).save(path, optimize=True)


def _draw_column(axes: Sequence[Any], trace: Trace, window: tuple[int, int], *, has_log_ratio: bool) -> None:
    loss, ratio, staleness, alignment = axes
    first, last = window
    loss.plot(range(first, last + 1), trace.losses[first - 1 : last] - trace.loss_floor, color=LOSS, linewidth=0.9)
    loss.set_yscale("log")
    # the gradient's below and wider: where it equals S both can be seen
    ratio.plot(*trace.read("gradient_curvature_ratio"), color=GRADIENT, linewidth=2.0, label="gradient-curvature ratio")
    ratio.plot(*trace.read("sharpness_ratio"), color=SHARPNESS, linewidth=0.9, label="sharpness ratio S")
    ratio.axhline(1.0, color="black", linestyle="--", linewidth=0.9, label="edge")
    if has_log_ratio:
        ratio.set_yscale("log")
    else:
        ratio.set_ylim(0, _top_of(trace))
    staleness.plot(*trace.read("v_hat_staleness"), color=STALENESS, linewidth=0.9)
    staleness.set_yscale("log")
    alignment.plot(*trace.read("alignment"), color=ALIGNMENT, linewidth=0.9)
    alignment.set_ylim(-0.05, 1.05)
    alignment.set_xlabel("step")
    alignment.set_xlim(first, last)
    for axis in axes:
        axis.grid(alpha=0.25)
        for episode in trace.episodes:
            axis.axvspan(episode.start - 0.5, episode.end + 0.5, **SHADE)


def _top_of(trace: Trace) -> float:
    """Room for S where it peaks moderately; the first steps may be far above and are cut."""
    _, values = trace.read("sharpness_ratio")
    return float(min(2.0, max(1.25, 1.1 * values[len(values) // 20 :].max()))) if values.size else 1.25
