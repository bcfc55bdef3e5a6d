"""Executors run the specs of a ``TrialSource``: one file each, with ``build(resources)`` giving a ``run(source)``."""

from __future__ import annotations

import importlib.util
from typing import Protocol

from stabletune.config import Resources
from stabletune.errors import ConfigError
from stabletune.study.source import TrialSource


class Executor(Protocol):
    """Runs every trial that the source hands out, and returns when it is over and nothing runs any more."""

    def run(self, source: TrialSource) -> None:
        """Run them."""
        ...


def load_executor(name: str, resources: Resources) -> Executor:
    """The executor in the file of that name; a ConfigError if there is none, a ResourceError if it cannot serve."""
    module_name = f"{__name__}.{name}"
    if not name.isidentifier() or importlib.util.find_spec(module_name) is None:
        raise ConfigError(f"executor: must be ray_tune, inline or a file beside them, but got {name!r}. Name one.")
    return importlib.import_module(module_name).build(resources)  # type: ignore[no-any-return]
