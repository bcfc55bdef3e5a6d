"""What can be named in a config because a file of that name is there: workloads, samplers."""

from __future__ import annotations

from pathlib import Path


def plugin_files(*folder: str) -> dict[str, Path]:
    """The modules in one of the package's folders, by name; nothing is imported."""
    paths = sorted(Path(__file__).resolve().parents[1].joinpath(*folder).glob("*.py"))
    return {path.stem: path for path in paths if not path.stem.startswith("_")}
