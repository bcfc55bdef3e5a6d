"""Causes of a spike: each is one file with ``NAME``, ``RANK`` and ``find(onset) -> Finding | None``.

The lowest rank is asked first; what compares the same step with and without a fault comes before what is inferred.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType


def load_causes() -> list[ModuleType]:
    """Every cause, in order of rank."""
    modules = [importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]
    return sorted(modules, key=lambda module: int(module.RANK))
