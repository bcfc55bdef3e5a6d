"""Where a trial's settings lie in the search space, as coordinates in which distances mean something."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from stabletune.space import Choices, FloatRange, IntRange, SearchSpace

MIDDLE = 0.5
CHOICES_APART = 0.5
FARTHEST = (-0.5, 1.5)


def place_of(settings: Mapping[str, Any], space: SearchSpace) -> tuple[float, ...]:
    """The coordinates of ``settings``: one from 0 to 1 for a range, on its own scale, and one for each choice.

    Two different choices lie 0.5 apart. A value outside its range lies outside 0 and 1,
    by half a range at most, so that 0 on a log scale is not infinitely far; an unknown one in the middle.
    """
    place: list[float] = []
    for name, allowed in space.ranges.items():
        value = settings.get(name)
        if isinstance(allowed, Choices):
            place.extend(CHOICES_APART / math.sqrt(2.0) * _is_choice(value, choice) for choice in allowed.values)
        else:
            place.append(_along(value, allowed))
    return tuple(place)


def coordinate_of(name: str, space: SearchSpace) -> int | None:
    """Which coordinate is the range ``name``; None if it is not searched over a range."""
    coordinate = 0
    for other, allowed in space.ranges.items():
        if other == name:
            return None if isinstance(allowed, Choices) else coordinate
        coordinate += len(allowed.values) if isinstance(allowed, Choices) else 1
    return None


def value_at(share: float, allowed: FloatRange | IntRange) -> float:
    """The value at ``share`` of a range, 0 its low end; the inverse of its coordinate."""
    low, high = _scaled(allowed.low, allowed.scale), _scaled(allowed.high, allowed.scale)
    at = low + share * (high - low)
    if allowed.scale == "log":
        return math.exp(at)
    return 1.0 - math.exp(-at) if allowed.scale == "log_one_minus" else at


def _is_choice(value: Any, choice: Any) -> bool:
    """Whether a value is this choice; true is not 1."""
    return bool(value == choice) and isinstance(value, bool) == isinstance(choice, bool)


def _along(value: Any, allowed: FloatRange | IntRange) -> float:
    low, high = _scaled(allowed.low, allowed.scale), _scaled(allowed.high, allowed.scale)
    if value is None or high <= low:
        return MIDDLE
    return min(max((_scaled(value, allowed.scale) - low) / (high - low), FARTHEST[0]), FARTHEST[1])


def _scaled(value: float, scale: str) -> float:
    if scale == "log":
        return math.log(max(value, 1e-300))
    if scale == "log_one_minus":
        return -math.log(max(1.0 - value, 1e-300))
    return float(value)
