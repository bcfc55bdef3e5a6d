"""stabletune: spike-free yet fast settings for Adam, found with preconditioned curvature as a stopping signal.

The names below load what they need when they are first used: importing the package loads neither torch nor ray.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stabletune.judgement.guard_policy import GuardBounds as GuardBounds
    from stabletune.monitor.alerts.stability_alerts import StabilityAlerts as StabilityAlerts
    from stabletune.monitor.stability_guard import StabilityGuard as StabilityGuard
    from stabletune.monitor.stability_monitor import StabilityMonitor as StabilityMonitor
    from stabletune.optim.instrumented_adamw import InstrumentedAdamW as InstrumentedAdamW
    from stabletune.results.recommendation import Recommendation as Recommendation
    from stabletune.study.run import search as search
    from stabletune.trial.training import Training as Training
    from stabletune.trial.trial import Trial as Trial

_HOMES = {
    "InstrumentedAdamW": "stabletune.optim.instrumented_adamw",
    "Recommendation": "stabletune.results.recommendation",
    "StabilityAlerts": "stabletune.monitor.alerts.stability_alerts",
    "GuardBounds": "stabletune.judgement.guard_policy",
    "StabilityGuard": "stabletune.monitor.stability_guard",
    "StabilityMonitor": "stabletune.monitor.stability_monitor",
    "Training": "stabletune.trial.training",
    "Trial": "stabletune.trial.trial",
    "search": "stabletune.study.run",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
