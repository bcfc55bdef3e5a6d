"""What can be named in a config or on the command line, each with one line on what it is; imports no torch."""

from __future__ import annotations

from collections.abc import Callable

from stabletune.config import list_workloads
from stabletune.config.plugins import plugin_summaries
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
        "samplers": lambda: plugin_summaries("study", "samplers"),
        "formats": lambda: plugin_summaries("results", "exporters"),
    }
    if section is not None and section not in sections:
        raise ConfigError(f"list: must be one of {', '.join(sections)}, but got {section!r}. Name one of them.")
    if section is not None:
        return _lines(sections[section]())
    return "\n\n".join(f"{name}\n{_lines(entries(), indent='  ')}" for name, entries in sections.items())


def _lines(entries: dict[str, str], indent: str = "") -> str:
    width = max((len(name) for name in entries), default=0)
    return "\n".join(f"{indent}{name:<{width}}  {text}".rstrip() for name, text in entries.items())
