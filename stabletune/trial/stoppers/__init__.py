"""Stoppers: each judges the whole history of a trial and may end it with a sentence.

A stopper is one file with ``verdict(history) -> Verdict | None`` and a ``RANK``: the lowest rank is asked first. It
keeps no state of its own.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable

from stabletune.judgement.history import History
from stabletune.trial.verdict import Verdict


def load_stoppers() -> list[Callable[[History], Verdict | None]]:
    """Every stopper, in order of rank."""
    modules = [importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]
    return [module.verdict for module in sorted(modules, key=lambda module: module.RANK)]
