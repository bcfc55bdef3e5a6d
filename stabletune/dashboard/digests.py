"""What is kept of a training's files, however long they grow: thinned curves, and the newest of the rest."""

from __future__ import annotations

from collections import deque
from typing import Any

from stabletune.dashboard.thinned_series import ThinnedSeries

SIGNALS = ("sharpness_ratio", "v_hat_staleness")
CURVES = ("loss", *SIGNALS)
NEWEST_ROWS, POINTS = 200, 600


class MeasurementsDigest:
    """The last step, and the curves of the loss and of the signals."""

    def __init__(self) -> None:
        self.step: int | None = None
        self.curves = {name: ThinnedSeries(POINTS) for name in CURVES}

    def add(self, line: dict[str, Any]) -> None:
        """Take in one line."""
        step = int(line["step"])
        values = {name: _number_or_none(line.get(name)) for name in CURVES}
        if self.step is not None and step <= self.step:  # the training went back to a checkpoint
            self.curves = {name: curve.before(step) for name, curve in self.curves.items()}
        self.step = step
        for name, value in values.items():
            if value is not None:
                self.curves[name].append(step, value)


class AlertsDigest:
    """The newest alerts, the level of the last, and the losses of all that say ``spiked``."""

    def __init__(self) -> None:
        self.level = "calm"
        self.newest: deque[dict[str, Any]] = deque(maxlen=NEWEST_ROWS)
        self.spikes = ThinnedSeries(POINTS)

    def add(self, line: dict[str, Any]) -> None:
        """Take in one line."""
        step, level, loss = int(line["step"]), str(line["level"]), _number_or_none(line.get("loss"))
        self.level = level
        self.newest.appendleft({"step": step, "level": level, "message": str(line.get("message", ""))})
        if level == "spiked" and loss is not None:
            self.spikes.append(step, loss)


class DecisionsDigest:
    """The newest decisions of a guard."""

    def __init__(self) -> None:
        self.newest: deque[dict[str, Any]] = deque(maxlen=NEWEST_ROWS)

    def add(self, line: dict[str, Any]) -> None:
        """Take in one line."""
        numbers = ("lr_scale", "beta2_cap", "gradient_scale", "sharpness_ratio")
        texts = {name: str(line.get(name, "")) for name in ("mode", "reason")}
        found = {"step": int(line["step"]), **texts, **{name: _number_or_none(line.get(name)) for name in numbers}}
        self.newest.appendleft(found)


def _number_or_none(value: Any) -> float | None:
    return None if value is None else float(value)
