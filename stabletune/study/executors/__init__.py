"""Executors run the specs of a ``TrialSource``: one file each, whose ``build(resources, workload)`` gives one."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Protocol

from stabletune.config import Resources
from stabletune.errors import ConfigError
from stabletune.study.source import TrialSource


class Executor(Protocol):
    """Runs every trial that the source hands out, and returns when it is over and nothing runs any more."""

    def run(self, source: TrialSource) -> None:
        """Run them."""


def load_executor(name: str, resources: Resources, workload: Path | None = None) -> Executor:
    """The executor in the file of that name; a ConfigError if there is none, a ResourceError if it cannot serve.

    ``workload`` is the file that holds the trials' workload, if one does.
    """
    spec = importlib.util.find_spec(f"{__name__}.{name}") if name.isidentifier() else None
    module = importlib.import_module(spec.name) if spec is not None else None
    if not hasattr(module, "build"):
        raise ConfigError(f"executor: must be ray_tune, inline or a file like them, but got {name!r}. Name one.")
    return module.build(resources, workload)  # type: ignore[union-attr,no-any-return]
