"""What can be named in a config or on the command line, each with one line on what it is; imports no torch."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

from stabletune.config import list_workloads
from stabletune.errors import ConfigError
from stabletune.space import list_search_spaces


def catalog(section: str | None = None) -> str:
    """The sections ``search-spaces``, ``workloads``, ``samplers`` and ``formats``, or one of them.

    Raises:
        ConfigError: there is no such section.
    """
    sections: dict[str, Callable[[], dict[str, str]]] = {
        "search-spaces": list_search_spaces,
        "workloads": list_workloads,
        "samplers": lambda: _list_files("study", "samplers"),
        "formats": lambda: _list_files("results", "exporters"),
    }
    if section is not None and section not in sections:
        raise ConfigError(f"list: must be one of {', '.join(sections)}, but got {section!r}. Name one of them.")
    if section is not None:
        return _lines(sections[section]())
    return "\n\n".join(f"{name}\n{_lines(entries(), indent='  ')}" for name, entries in sections.items())


def _list_files(*place: str) -> dict[str, str]:
    """The modules of one of the package's folders and the first line of what each says of itself."""
    files = sorted(path for path in Path(__file__).parent.joinpath(*place).glob("*.py") if path.stem[0] != "_")
    return {path.stem: (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0] for path in files}


def _lines(entries: dict[str, str], indent: str = "") -> str:
    width = max((len(name) for name in entries), default=0)
    return "\n".join(f"{indent}{name:<{width}}  {text}".rstrip() for name, text in entries.items())
