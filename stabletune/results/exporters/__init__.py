"""Recommended settings in other tools' words: one module per format, each with ``export(recommendation) -> str``.

A new format is a new module here, of the format's name; the first line of its docstring is what a list may show.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil

from stabletune.errors import ExportError
from stabletune.results.recommendation import Recommendation


def formats() -> tuple[str, ...]:
    """The formats there are, by name."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def export(recommendation: Recommendation, format_name: str) -> str:
    """The settings as text in one format; raises ``ExportError`` for an unknown format or a missing horizon."""
    if format_name not in formats():
        near = difflib.get_close_matches(format_name, formats(), n=1)
        remedy = f"Did you mean {near[0]}?" if near else "Name one of them."
        raise ExportError(f"--format: must be one of {', '.join(formats())}, but got {format_name!r}. {remedy}")
    module = importlib.import_module(f"{__name__}.{format_name}")
    text: str = module.export(recommendation)
    return text if text.endswith("\n") else text + "\n"
