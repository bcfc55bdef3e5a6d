"""What can be named in a config because a file of that name is there: workloads, samplers."""

from __future__ import annotations

import ast
from pathlib import Path


def plugin_files(*folder: str) -> dict[str, Path]:
    """The modules in one of the package's folders, by name; nothing is imported."""
    paths = sorted(Path(__file__).resolve().parents[1].joinpath(*folder).glob("*.py"))
    return {path.stem: path for path in paths if not path.stem.startswith("_")}


def plugin_summaries(*folder: str) -> dict[str, str]:
    """The first line of what each of them says of itself, by name."""
    docstrings = {name: ast.get_docstring(ast.parse(path.read_bytes())) for name, path in plugin_files(*folder).items()}
    return {name: (text or "").partition("\n")[0] for name, text in docstrings.items()}
