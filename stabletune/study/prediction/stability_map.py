"""The boundary drawn: predicted survival over two hyperparameters, and how far settings are from the edge."""

from __future__ import annotations

from typing import Any

import numpy as np

from stabletune.config import Config
from stabletune.space import Choices, FloatRange, IntRange
from stabletune.study.feasibility import LIKELY
from stabletune.study.prediction.observation import Observation
from stabletune.study.prediction.outlook import Outlook
from stabletune.study.prediction.place import coordinate_of, value_at

SHOWN_FIRST = ("lr", "beta2")
POINTS = 25


def stability_map(config: Config, outlook: Outlook, around: Observation) -> dict[str, Any] | None:
    """Predicted survival over the full horizon on a grid of two searched ranges, lr and beta2 if they are searched.

    Everything else is as in ``around``. Plain data: ``names``, ``x`` and ``y`` (values along each), ``survival`` (one
    row for each y). None if fewer than two ranges are searched.
    """
    ranges = _ranges(config)
    names = sorted(ranges, key=lambda name: SHOWN_FIRST.index(name) if name in SHOWN_FIRST else len(SHOWN_FIRST))[:2]
    if len(names) < 2:
        return None
    shares = np.linspace(0.0, 1.0, POINTS)
    across, up = (coordinate_of(name, config.search_space) for name in names)
    places = []
    for y in shares:
        for x in shares:
            place = list(around.place)
            place[across], place[up] = float(x), float(y)  # type: ignore[index]
            places.append(place)
    x_values, y_values = ([value_at(float(share), ranges[name]) for share in shares] for name in names)
    survival = outlook.boundary.survival(places).reshape(POINTS, POINTS)
    return {"names": names, "x": x_values, "y": y_values, "survival": survival.round(3).tolist()}


def lr_margin(config: Config, outlook: Outlook, run: Observation) -> float | None:
    """By what factor the learning rate could grow before a clean run becomes less likely than not.

    By the boundary model, within the range of the search; below 1 where a clean run is already unlikely. None if the
    edge lies beyond the range, or lr is not searched over one.
    """
    allowed, coordinate = _ranges(config).get("lr"), coordinate_of("lr", config.search_space)
    if allowed is None or coordinate is None:
        return None
    shares = np.linspace(0.0, 1.0, 8 * POINTS)
    places = [[*run.place[:coordinate], float(share), *run.place[coordinate + 1 :]] for share in shares]
    is_likely = outlook.boundary.survival(places) >= LIKELY
    at = int(np.argmin(np.abs(shares - run.place[coordinate])))
    step = 1 if is_likely[at] else -1
    while 0 <= at + step < shares.size and is_likely[at + step] == (step > 0):
        at += step
    is_beyond = at == (shares.size - 1 if is_likely[at] else 0)
    return None if is_beyond else value_at(float(shares[at]), allowed) / run.lr


def _ranges(config: Config) -> dict[str, FloatRange | IntRange]:
    ranges = config.search_space.ranges.items()
    return {
        name: allowed for name, allowed in ranges if not isinstance(allowed, Choices) and allowed.high > allowed.low
    }
