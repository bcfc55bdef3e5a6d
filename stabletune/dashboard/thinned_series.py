"""A series that grows without end, in bounded memory: what a chart shows of it, its peaks included."""

from __future__ import annotations

import math
from typing import NamedTuple


class Point(NamedTuple):
    """The ``n``-th value that came, and its step."""

    n: int
    step: float
    value: float


class ThinnedSeries:
    """At most so many points of a series: its first and last, the smallest and the largest of each stretch between.

    Stretches are equally long. Once there are too many, each two neighbours become one, so that old and new are thinned
    alike and no peak vanishes. A value that is not finite counts as the largest, as in ``downsample``, of which this is
    the form for series that are not over. Cost: a value is compared twice, and again whenever stretches are joined.

    Args:
        points: at least 4; a series of up to (points - 2) / 2 values is kept whole.
    """

    def __init__(self, points: int) -> None:
        self._points, self._most_stretches = points, (points - 2) // 2
        self._length = 1
        self._stretches: list[tuple[Point, Point]] = []
        self._first: Point | None = None
        self._last: Point | None = None

    def append(self, step: float, value: float) -> None:
        """Take in the next value."""
        n = 0 if self._last is None else self._last.n + 1
        self._last = point = Point(n, float(step), float(value))
        if self._first is None:
            self._first = point
        if n // self._length == self._most_stretches:
            pairs = (self._stretches[at : at + 2] for at in range(0, self._most_stretches, 2))
            self._stretches = [_joined(pair[0], pair[-1]) for pair in pairs]
            self._length *= 2
        if n // self._length == len(self._stretches):
            self._stretches.append((point, point))
        else:
            self._stretches[-1] = _joined(self._stretches[-1], (point, point))

    def before(self, step: float) -> ThinnedSeries:
        """The series without what came at ``step`` or later, of which as much is known as is kept."""
        found = ThinnedSeries(self._points)
        for at, value in zip(*self.columns(), strict=True):
            if at < step:
                found.append(at, value)
        return found

    def columns(self) -> list[list[float]]:
        """The steps and the values, in the order in which they came."""
        ends = [point for point in (self._first, self._last) if point is not None]
        kept = sorted({*ends, *(point for stretch in self._stretches for point in stretch)})
        return [[point.step for point in kept], [point.value for point in kept]]


def _joined(one: tuple[Point, Point], other: tuple[Point, Point]) -> tuple[Point, Point]:
    return min(one[0], other[0], key=_height), max(one[1], other[1], key=_height)


def _height(point: Point) -> float:
    return point.value if math.isfinite(point.value) else math.inf
