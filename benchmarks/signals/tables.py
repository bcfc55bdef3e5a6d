"""Markdown tables and the few statistics they hold."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def seconds(action: Callable[[], T]) -> tuple[float, T]:
    """The wall time of one call, and its result."""
    started = time.perf_counter()
    result = action()
    return time.perf_counter() - started, result


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a markdown table at once, so that a run cut short still shows what it has."""
    lines = [f"\n### {title}\n", "| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(_cell(value) for value in row) + " |" for row in rows]
    print("\n".join(lines), flush=True)


def percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.2g} %" if abs(value) < 0.1 else f"{100 * value:.0f} %"


def quantiles(errors: Sequence[float]) -> tuple[str, str, str]:
    """Median, 90th percentile and largest, in percent."""
    if not len(errors):
        return "-", "-", "-"
    return percent(float(np.median(errors))), percent(float(np.quantile(errors, 0.9))), percent(max(errors))


def _cell(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value).replace("|", "/")
