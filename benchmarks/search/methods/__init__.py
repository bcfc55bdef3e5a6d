"""One tuner a file: ``search(task, seed) -> Found``; every optimizer step it takes is counted from outside."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable

from benchmarks.search.confirmation import Found
from benchmarks.search.tasks import Task

METHODS = tuple(module.name for module in pkgutil.iter_modules(__path__))


def load_method(name: str) -> Callable[[Task, int], Found]:
    """The search function of that name."""
    return importlib.import_module(f"{__name__}.{name}").search  # type: ignore[no-any-return]
