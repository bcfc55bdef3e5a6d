"""What was expected against what was measured: one ``Finding`` is one row of the table in docs/reproduction.md.

Numbers flow in through ``near``, ``within`` and ``holds``, which judge; nothing else decides a verdict.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

COLUMNS = ("item", "quantity", "expected", "tolerance", "measured", "verdict")
REPRODUCED, MISSED, SHOWN = "reproduced", "**missed**", "shown"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """One row; ``verdict`` is ``REPRODUCED``, ``MISSED``, or ``SHOWN`` where nothing was published to compare with."""

    quantity: str
    expected: str
    tolerance: str
    measured: str
    verdict: str


def near(quantity: str, measured: float | None, expected: float, *, tolerance: float, digits: int = 4) -> Finding:
    """Judge ``|measured - expected| <= tolerance``; None and nan miss."""
    is_met = measured is not None and abs(measured - expected) <= tolerance
    return Finding(
        quantity=quantity,
        expected=number(expected, digits),
        tolerance="exact" if tolerance == 0 else f"± {number(tolerance, 2)}",
        measured=number(measured, digits),
        verdict=REPRODUCED if is_met else MISSED,
    )


def within(quantity: str, measured: float | None, low: float, high: float, *, expected: str = "") -> Finding:
    """Judge ``low <= measured <= high``; None and nan miss."""
    limits = f"{number(low)} to {number(high)}" if math.isfinite(high) else f"at least {number(low)}"
    is_met = measured is not None and low <= measured <= high
    return Finding(
        quantity=quantity,
        expected=expected or limits,
        tolerance=limits,
        measured=number(measured),
        verdict=REPRODUCED if is_met else MISSED,
    )


def holds(quantity: str, expected: str, *, measured: str, is_met: bool, tolerance: str = "exact") -> Finding:
    """Judge a claim that is no single number."""
    verdict = REPRODUCED if is_met else MISSED
    return Finding(quantity=quantity, expected=expected, tolerance=tolerance, measured=measured, verdict=verdict)


def shown(quantity: str, *, measured: str, expected: str = "-") -> Finding:
    """Report a number that no claim is made about."""
    return Finding(quantity=quantity, expected=expected, tolerance="-", measured=measured, verdict=SHOWN)


def number(value: float | None, digits: int = 3) -> str:
    """Write a number with ``digits`` significant digits; whole numbers in full, None as ``never``."""
    if value is None:
        return "never"
    if math.isfinite(value) and value == round(value) and abs(value) < 1e6:
        return str(round(value))
    return f"{value:.{digits}g}"


def span(values: Iterable[float], digits: int = 2) -> str:
    """Write the smallest and the largest of some numbers."""
    listed = list(values)
    low, high = number(min(listed), digits), number(max(listed), digits)
    return low if low == high else f"{low} to {high}"


def table(findings: Iterable[tuple[str, Finding]]) -> str:
    """Write (item, finding) pairs as one markdown table."""
    rows = [(item, f.quantity, f.expected, f.tolerance, f.measured, f.verdict) for item, f in findings]
    lines = [COLUMNS, tuple("---" for _ in COLUMNS), *(tuple(cell.replace("|", "/") for cell in row) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
