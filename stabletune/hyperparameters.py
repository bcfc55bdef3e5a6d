"""The hyperparameters a config may search or set: torch's names, torch's defaults, and what each may be."""

from __future__ import annotations

import dataclasses
import math
import sys
from typing import Any

WORKLOAD_ARGS = "workload_args."
MITIGATIONS = ("max_grad_norm", "update_clip", "second_moment_clip", "second_moment_reset")
_TO_COME = ("second_moment_reset",)
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
    is_implemented: bool = True

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


def _mitigation(name: str) -> Hyperparameter:
    return Hyperparameter(name, None, includes_low=False, is_nullable=True, is_implemented=name not in _TO_COME)


HYPERPARAMETERS: dict[str, Hyperparameter] = {
    hyperparameter.name: hyperparameter
    for hyperparameter in (
        Hyperparameter("lr", 1e-3, includes_low=False),
        Hyperparameter("beta1", 0.9, high=1.0),
        Hyperparameter("beta2", 0.999, high=1.0),
        Hyperparameter("eps", 1e-8),
        Hyperparameter("weight_decay", 1e-2),
        *map(_mitigation, MITIGATIONS),
        Hyperparameter("amsgrad", False, is_switch=True),
        Hyperparameter("warmup_ratio", 0.0, high=1.0),
    )
}
IMPLEMENTED_MITIGATIONS = tuple(name for name in MITIGATIONS if HYPERPARAMETERS[name].is_implemented)


def default_settings() -> dict[str, Any]:
    """Every hyperparameter at torch.optim.AdamW's default, mitigations off."""
    return {name: hyperparameter.default for name, hyperparameter in HYPERPARAMETERS.items()}
