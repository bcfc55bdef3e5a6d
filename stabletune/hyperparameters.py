"""The hyperparameters a config may search or set: torch's names, torch's defaults, and what each may be."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Iterable, Mapping
from typing import Any

WORKLOAD_ARGS = "workload_args."
MITIGATIONS = ("max_grad_norm", "update_clip", "second_moment_clip", "second_moment_reset", "beta2_exponent")
# what v would be with another beta2 is not known beside these
EXCLUDES_SHADOWS = {
    "second_moment_clip": "clips by v itself",
    "second_moment_reset": "judges by v itself",
    "beta2_exponent": "sets beta2 anew at each step",
}
MOST_SHADOWS = 8  # each holds a float per parameter


@dataclasses.dataclass(frozen=True)
class Hyperparameter:
    """One tunable setting.

    ``default`` is torch.optim.AdamW's (None: off). A number lies in ``low`` to ``high``; ``low`` itself belongs to it
    only if ``includes_low``, ``high`` never does. A switch (``is_switch``) is true or false.
    """

    name: str
    default: float | bool | None
    low: float = 0.0
    high: float = math.inf
    includes_low: bool = True
    is_nullable: bool = False
    is_switch: bool = False

    @property
    def rule(self) -> str:
        """What a value must be, reading on from the name."""
        if self.is_switch:
            return "must be true or false"
        low = f"{self.low:g} <= {self.name}" if self.includes_low else f"{self.low:g} < {self.name}"
        number = f"{low} must hold" if math.isinf(self.high) else f"{low} < {self.high:g} must hold"
        return f"{number}, or null to switch it off" if self.is_nullable else number

    def accepts(self, value: Any) -> bool:
        """Whether ``value`` keeps the rule."""
        if value is None:
            return self.is_nullable
        if self.is_switch or isinstance(value, bool):
            return self.is_switch and isinstance(value, bool)
        if not isinstance(value, (int, float)) or not abs(value) <= sys.float_info.max:
            return False
        return (self.low < value or (self.includes_low and value == self.low)) and value < self.high


def _mitigation(name: str, *, low: float = 0.0, high: float = math.inf) -> Hyperparameter:
    return Hyperparameter(name, None, low, high, includes_low=False, is_nullable=True)


HYPERPARAMETERS: dict[str, Hyperparameter] = {
    hyperparameter.name: hyperparameter
    for hyperparameter in (
        Hyperparameter("lr", 1e-3, includes_low=False),
        Hyperparameter("beta1", 0.9, high=1.0),
        Hyperparameter("beta2", 0.999, high=1.0),
        Hyperparameter("eps", 1e-8),
        Hyperparameter("weight_decay", 1e-2),
        _mitigation("max_grad_norm"),
        _mitigation("update_clip"),
        _mitigation("second_moment_clip"),
        _mitigation("second_moment_reset", low=1.0),
        _mitigation("beta2_exponent", high=1.0),
        Hyperparameter("amsgrad", False, is_switch=True),
        Hyperparameter("warmup_ratio", 0.0, high=1.0),
    )
}


def scaled_groups(params: Iterable[Any], lr: float) -> list[Any]:
    """Parameters, or groups of them in which ``lr_scale`` has become the group's own ``lr``, as torch takes them."""
    return [
        {**entry, "lr": lr * entry.get("lr_scale", 1.0)} if isinstance(entry, Mapping) else entry for entry in params
    ]


def default_settings() -> dict[str, Any]:
    """Every hyperparameter at torch.optim.AdamW's default, mitigations off."""
    return {name: hyperparameter.default for name, hyperparameter in HYPERPARAMETERS.items()}


def scheduled_beta2(step: int, beta2: float, exponent: float | None) -> float:
    """Give Adafactor's decay rate of the second moment.

    b2_t = min(b2, 1 - t^-c): the memory is about t^c steps long and ends at the 1 / (1-b2) of Adam.

    Args:
        step: t >= 1, of the gradient that enters.
        beta2: b2, never exceeded.
        exponent: c; 0.8 in the source. None leaves b2.

    Source: Adafactor, arXiv:1804.04235, section 7.2.
    """
    return beta2 if exponent is None else min(beta2, 1.0 - step**-exponent)
