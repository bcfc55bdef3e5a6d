"""A YAML file together with where each of its keys was written, so that every mistake can name its line.

Flows in: a file, and ``--set`` overrides; flows out: plain data, and problems of the form
``<where>: <key>: <rule>, but got <value>. <remedy>``.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from stabletune.errors import ConfigError

Keys = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    """SafeLoader that also reads ``1e-5`` as a number, which YAML 1.1 takes for text."""


_Loader.yaml_implicit_resolvers = {
    first: list(known) for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


@dataclasses.dataclass
class Document:
    """Plain data read from ``name``; ``origins`` tells where each key stands, as ``FILE:LINE`` or the override."""

    name: str
    data: dict[str, Any]
    origins: dict[Keys, str]

    def where(self, keys: Keys) -> str:
        """Where ``keys`` stands, or else the nearest mapping around it, or else the file."""
        return next((self.origins[keys[:n]] for n in range(len(keys), 0, -1) if keys[:n] in self.origins), self.name)

    def problem(self, keys: Keys, rule: str, value: Any, remedy: str) -> str:
        """One mistake as a sentence; ``rule`` reads on from the key."""
        return f"{self.where(keys)}: {dotted(keys)}: {rule}, but got {shown(value)}. {remedy}"

    def unknown(self, keys: Keys, known: Iterable[str]) -> str:
        """The problem of a key nobody knows, with the nearest known one."""
        names = list(known)
        close = difflib.get_close_matches(str(keys[-1]), names, n=1)
        remedy = f"Did you mean `{dotted((*keys[:-1], close[0]))}`?" if close else f"Known here: {', '.join(names)}."
        return f"{self.where(keys)}: unknown key `{dotted(keys)}`. {remedy}"

    def missing(self, keys: Keys, remedy: str) -> str:
        """The problem of a required key that is not there."""
        return f"{self.where(keys)}: {dotted(keys)}: must be given, but got nothing. {remedy}"


def read_document(path: str | Path) -> Document:
    """Read one YAML mapping with the lines of its keys.

    Raises:
        ConfigError: the file cannot be read, is not one YAML mapping, or has a key twice.
    """
    name = str(path)
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "bytes that are not UTF-8"
        raise ConfigError(f"{name}: must be a readable text file, but got: {reason}. Check the path.") from error
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        marks = _Marks(name)
        if node is not None:
            marks.visit((), node)
        data = None if node is None or marks.problems else loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        raise ConfigError(_syntax_problem(name, error)) from error
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{name}: must be valid YAML, but got: {error}. Correct the file.") from error
    if not marks.problems and not isinstance(data, dict):
        got = "an empty file" if data is None else shown(data)
        marks.problems.append(f"{name}: must be a mapping of keys to values, but got {got}. Write `key: value` lines.")
    if marks.problems or not isinstance(data, dict):
        raise ConfigError(marks.problems)
    return Document(name, data, marks.origins)


def apply_overrides(document: Document, overrides: Sequence[str]) -> list[str]:
    """Set ``key.key=value`` in place, values read as YAML; return the problems."""
    problems = []
    for override in overrides:
        where = f"--set {override}"
        name, equals, text = override.partition("=")
        keys: Keys = tuple(re.findall(r"(?<=\.)workload_args\.[^.]+|[^.]+", name.strip()))
        if not equals or not keys:
            problems.append(f"{where}: must read key.key=value, but got {override!r}. Example: --set budget.trials=10.")
            continue
        try:
            value = read_value(text)
        except ValueError:
            problems.append(f"{where}: the value must be valid YAML, but got {text!r}. Quote it for the shell.")
            continue
        target: Any = document.data
        for depth, key in enumerate(keys[:-1], start=1):
            if target.get(key) is None:
                target[key] = {}
            target = target[key]
            if not isinstance(target, dict):
                rule = f"{where}: {dotted(keys[:depth])} must be a mapping to set a key in it"
                problems.append(f"{rule}, but got {shown(target)}. Set {dotted(keys[:depth])} itself.")
                break
        else:
            target[keys[-1]] = value
            document.origins = {old: origin for old, origin in document.origins.items() if old[: len(keys)] != keys}
            document.origins[keys] = where
    return problems


def read_value(text: str) -> Any:
    """A value from the command line, as YAML would read it in a file; raises ValueError where it is no YAML."""
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def dotted(keys: Keys) -> str:
    """``("budget", "trials")`` as ``budget.trials``; list items as ``choices[2]``."""
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys)
    return text.removeprefix(".")


def shown(value: Any) -> str:
    """A value as the reader wrote it in YAML, shortened."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value)
    if isinstance(value, (dict, list)):
        text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=1000).strip()
    return text if len(text) <= 80 else f"{text[:77]}..."


class _Marks:
    """Walks a composed YAML tree and keeps each key's line and the keys written twice."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.origins: dict[Keys, str] = {}
        self.problems: list[str] = []
        self._above: list[yaml.Node] = []

    def visit(self, keys: Keys, node: yaml.Node) -> None:
        if any(node is above for above in self._above):
            self.problems.append(f"{self.name}: {dotted(keys)}: must not contain itself. Remove the alias.")
            return
        self._above.append(node)
        if isinstance(node, yaml.MappingNode):
            self._visit_mapping(keys, node)
        elif isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self.origins[(*keys, index)] = f"{self.name}:{item.start_mark.line + 1}"
                self.visit((*keys, index), item)
        self._above.pop()

    def _visit_mapping(self, keys: Keys, node: yaml.MappingNode) -> None:
        for key_node, value_node in node.value:
            where = f"{self.name}:{key_node.start_mark.line + 1}"
            if key_node.tag not in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"):
                got = shown(getattr(key_node, "value", None))
                self.problems.append(f"{where}: a key must be text, but got {got}. Put it in quotes.")
                continue
            here = (*keys, key_node.value)
            if here in self.origins:
                first = self.origins[here].rpartition(":")[2]
                rule = f"{where}: {dotted(here)}: must be written once"
                self.problems.append(f"{rule}, but got it on line {first} too. Remove one of them.")
                continue
            self.origins[here] = where
            self.visit(here, value_node)


def _syntax_problem(name: str, error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark
    where = name if mark is None else f"{name}:{mark.line + 1}"
    column = "" if mark is None else f" near column {mark.column + 1}"
    return f"{where}: must be valid YAML, but got: {error.problem}. Check the colons, brackets and indentation{column}."
