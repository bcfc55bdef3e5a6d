"""A YAML file together with where each of its keys was written, so that every mistake can name its line.

Flows in: a file, and ``--set`` overrides; flows out: plain data, and problems of the form
``<where>: <key>: <rule>, but got <value>. <remedy>``.
"""

from __future__ import annotations

import dataclasses
import datetime
import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from stabletune.errors import ConfigError, without_password

Keys = tuple[str | int, ...]
MOST_BYTES = 256 * 1024  # the parser is slow: seconds for a file of this size
MOST_VALUES = 100_000  # a few aliases of aliases stand for billions
DEEPEST = 32
_TOO_DEEP = f"must be nested at most {DEEPEST} levels deep, but got more. Flatten it."
# YAML 1.1 reads 0777 as 511 and 1:30 as 90
_NOT_DECIMAL = re.compile(r"[-+]?(0[0-7_]+|[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?)")


class _Loader(yaml.SafeLoader):
    """SafeLoader that also reads ``1e-5`` as a number, which YAML 1.1 takes for text; ``tags`` are those written."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.tags: dict[yaml.Node, str] = {}

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        tag = getattr(self.peek_event(), "tag", None)  # type: ignore[no-untyped-call]
        node = super().compose_node(parent, index)
        if node is not None and tag not in (None, "!"):
            self.tags[node] = str(tag)
        return node


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
        close = difflib.get_close_matches(str(keys[-1]).lower(), names, n=1)
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
    data, marks = _parse(name, _read_text(path))
    if not marks.problems and not isinstance(data, dict):
        got = "an empty file" if data is None else shown(data)
        marks.problems.append(f"{name}: must be a mapping of keys to values, but got {got}. Write `key: value` lines.")
    if marks.problems or not isinstance(data, dict):
        raise ConfigError(marks.problems)
    return Document(name, data, marks.origins)


def _read_text(path: str | Path) -> str:
    try:
        with Path(path).open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"{path}: must be a readable text file, but got: {error.strerror}. Check the path."
        ) from error
    if len(content) > MOST_BYTES:
        raise ConfigError(f"{path}: must be at most {MOST_BYTES // 1024} KiB, but got a larger file. Check the path.")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{path}:{line}: must be a readable text file, but got: bytes that are not UTF-8. Save it as UTF-8."
        ) from error


def _parse(name: str, text: str) -> tuple[Any, _Marks]:
    """The data of one YAML document, unless its marks have problems; raises ConfigError where it is no YAML."""
    try:
        loader = _Loader(text)
        marks = _Marks(name, loader)
        node = loader.get_single_node()
        if node is not None:
            marks.visit((), node)
        return None if node is None or marks.problems else loader.construct_document(node), marks
    except yaml.MarkedYAMLError as error:
        raise ConfigError(_syntax_problem(name, error)) from error
    except yaml.reader.ReaderError as error:
        where = f"{name}:{text.count(chr(10), 0, error.position) + 1}"
        raise ConfigError(
            f"{where}: must be valid YAML, but got the character U+{error.character:04X}. Remove it."
        ) from error
    except RecursionError as error:
        raise ConfigError(f"{name}: {_TOO_DEEP}") from error


def apply_overrides(document: Document, overrides: Sequence[str]) -> list[str]:
    """Set ``key.key=value`` in place, values read as YAML; return the problems."""
    problems = []
    for override in overrides:
        where = f"--set {_shortened(override)}"
        name, equals, text = override.partition("=")
        keys: Keys = tuple(re.findall(r"(?<=\.)workload_args\.[^.]+|[^.]+", name.strip()))
        if not equals or not keys:
            rule = f"{where}: must read key.key=value, but got {without_password(override)!r}"
            problems.append(f"{rule}. Example: --set budget.trials=10.")
            continue
        try:
            value = read_value(text)
        except ValueError as error:
            problems.append(f"{where}: {error}")
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
    """A value from the command line, as YAML would read it in a file; ValueError says which rule it breaks."""
    try:
        value, marks = _parse("", text)
    except ConfigError as error:
        raise ValueError(f"must be valid YAML, but got {shown(text)}. Quote it for the shell.") from error
    if marks.problems:
        raise ValueError(marks.problems[0])
    return value


def dotted(keys: Keys) -> str:
    """``("budget", "trials")`` as ``budget.trials``; list items as ``choices[2]``."""
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys)
    return text.removeprefix(".")


def shown(value: Any) -> str:
    """A value as the reader wrote it in YAML, without passwords, shortened."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value) if isinstance(value, datetime.date) else repr(value)
    if isinstance(value, (dict, list)):
        text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=1000).strip()
    return _shortened(text)


def _shortened(text: str) -> str:
    text = without_password(text)
    return text if len(text) <= 80 else f"{text[:77]}..."


class _Marks:
    """Walks a composed YAML tree and keeps each key's line, and what in it would not mean what the reader thinks."""

    def __init__(self, name: str, loader: _Loader) -> None:
        self.name = name
        self.origins: dict[Keys, str] = {}
        self.problems: list[str] = []
        self._loader = loader
        self._n_values = 0
        self._above: list[yaml.Node] = []

    def visit(self, keys: Keys, node: yaml.Node) -> None:
        self._n_values += 1
        broken = self._broken_rule(keys, node)
        if broken is not None:
            self._refuse(self.origins.get(keys, self.name), keys, broken)
        if broken is not None or self._n_values > MOST_VALUES:
            return
        self._above.append(node)
        if isinstance(node, yaml.MappingNode):
            self._visit_mapping(keys, node)
        elif isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self.origins[(*keys, index)] = self._line(item)
                self.visit((*keys, index), item)
        self._above.pop()

    def _broken_rule(self, keys: Keys, node: yaml.Node) -> str | None:
        if any(node is above for above in self._above):
            return "must not contain itself, but an alias in it does. Remove the alias."
        if node in self._loader.tags:
            tag = self._loader.tags[node].replace("tag:yaml.org,2002:", "!!")
            return f"must be written without a tag, but got {tag}. Remove it."
        if len(self._above) >= DEEPEST:
            return _TOO_DEEP
        if self._n_values == MOST_VALUES + 1:
            return f"must hold at most {MOST_VALUES} values, but got more. Remove aliases that hold aliases."
        return self._broken_by_scalar(keys, node) if isinstance(node, yaml.ScalarNode) else None

    def _broken_by_scalar(self, keys: Keys, node: yaml.ScalarNode) -> str | None:
        try:
            value = self._loader.construct_object(node)
            node.value.encode("utf-8")
        except (ValueError, OverflowError) as error:
            reason = str(error).partition(":")[0].partition(";")[0]
            return f"must be a value that can be read, but got {shown(node.value)} ({reason}). Correct it."
        if not isinstance(value, str) and _NOT_DECIMAL.fullmatch(node.value):
            got = f"{node.value}, which YAML reads as {value}"
            remedy = f"Write {value}, or put it in quotes." if _may_be_text(keys) else f"Write {value}."
            return f"must be written as a decimal number, but got {got}. {remedy}"
        return None

    def _line(self, node: yaml.Node) -> str:
        """Where a node begins; nothing for a value from the command line."""
        return f"{self.name}:{node.start_mark.line + 1}" if self.name else ""

    def _refuse(self, where: str, keys: Keys, broken: str) -> None:
        self.problems.append(": ".join(filter(None, (where, dotted(keys), broken))))

    def _visit_mapping(self, keys: Keys, node: yaml.MappingNode) -> None:
        for key_node, value_node in node.value:
            where = self._line(key_node)
            if key_node.tag not in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge") or not _is_text(key_node.value):
                got = shown(key_node.value if isinstance(key_node, yaml.ScalarNode) else "a list or a mapping")
                self._refuse(where, keys, f"a key must be text, but got {got}. Put it in quotes.")
                continue
            here = (*keys, key_node.value)
            if here in self.origins:
                got = f"it on line {self.origins[here].rpartition(':')[2] or 1} too"
                self._refuse(where, here, f"must be written once, but got {got}. Remove one of them.")
                continue
            self.origins[here] = where
            self.visit(here, value_node)


def _may_be_text(keys: Keys) -> bool:
    return keys[:1] == ("name",) or any(str(key).startswith("workload_args") for key in keys)


def _is_text(written: str) -> bool:
    """Whether a file can hold it: half of a surrogate pair, written as an escape, is none."""
    return written.encode("utf-8", "replace").decode() == written


def _syntax_problem(name: str, error: yaml.MarkedYAMLError) -> str:
    mark, problem = error.problem_mark, str(error.problem)
    where = name if mark is None else f"{name}:{mark.line + 1}"
    if problem == "but found another document":
        return f"{where}: must hold one document, but got a second one. Remove it, with the `---` above it."
    if "'\\t'" in problem:
        return f"{where}: must be valid YAML, but got: {problem}. Indent with spaces, not with tabs."
    column = "" if mark is None else f" near column {mark.column + 1}"
    return f"{where}: must be valid YAML, but got: {problem}. Check the colons, brackets and indentation{column}."
