"""config.yaml as a frozen, checked object."""

from stabletune.config.config import Config
from stabletune.config.preflight import list_workloads
from stabletune.config.reader import load_config
from stabletune.config.sections import Budget, Objective, Resources, Schedule, Signals

__all__ = [
    "Budget",
    "Config",
    "Objective",
    "Resources",
    "Schedule",
    "Signals",
    "list_workloads",
    "load_config",
]
