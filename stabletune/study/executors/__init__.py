"""Executors run the specs of a ``TrialSource``: one file each, with a class that has ``run(source)``."""

from __future__ import annotations

import importlib
from typing import Protocol

from stabletune.config import Resources
from stabletune.errors import ConfigError
from stabletune.study.source import TrialSource

NAMES: tuple[str, ...] = ("ray_tune", "inline")


class Executor(Protocol):
    """Runs every trial that the source hands out, until it is over."""

    def run(self, source: TrialSource) -> None:
        """Return when the source is over and nothing runs any more."""
        ...


def load_executor(name: str, resources: Resources) -> Executor:
    """The executor of that name.

    Raises:
        ConfigError: there is none.
        ResourceError: the machine or cluster lacks what one trial asks for.
    """
    if name not in NAMES:
        raise ConfigError(f"executor: must be one of {', '.join(NAMES)}, but got {name!r}. Name one of them.")
    module = importlib.import_module(f"{__name__}.{name}")
    return module.build(resources)  # type: ignore[no-any-return]
