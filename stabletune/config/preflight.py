"""Finds the workload a config names and reads its source without importing it.

Flows in: ``FILE.py:FUNCTION``, ``package.module:function`` or a built-in name; flows out: a ``WorkloadReference``, the
hash of the source, and every mistake that can be seen before a process starts.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import importlib.machinery
import importlib.util
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from stabletune.config.plugins import plugin_files, plugin_summaries
from stabletune.errors import ConfigError
from stabletune.records import WorkloadReference


@dataclasses.dataclass(frozen=True)
class FoundWorkload:
    """A workload that exists: its reference, how a config names it from anywhere, its source file and its hash."""

    reference: WorkloadReference
    name: str
    source: Path | None
    sha256: str | None


def list_workloads() -> dict[str, str]:
    """The built-in workloads and the first line of what each says of itself; nothing is imported."""
    return plugin_summaries("trial", "workloads")


def find_workload(name: str, folder: Path) -> FoundWorkload:
    """Locate ``name``; files are relative to ``folder``.

    Raises:
        ConfigError: nothing of that name, in the form ``<rule>, but got <value>. <remedy>``.
    """
    place, colon, function = name.rpartition(":")
    if not colon:
        return _built_in(name, folder)
    if not function.isidentifier():
        _refuse("must end in :FUNCTION", name, "Example: workload.py:build.")
    if place.endswith(".py") or "/" in place:
        path = folder / os.path.expanduser(place)
        if not os.path.isfile(path):
            _refuse(f"must name an existing file ({path} is none)", name, "The path is relative to the config.")
        path = path.resolve()
        return _found(WorkloadReference(function, path=str(path)), f"{path}:{function}", path)
    return _found(WorkloadReference(function, module=place), name, _module_source(place, name))


def check_workload(found: FoundWorkload, arguments: Sequence[str]) -> list[str]:
    """Mistakes visible in the source: it must parse, define the function, and the function must take ``arguments``."""
    if found.source is None or found.source.suffix != ".py":
        return []
    name = found.name
    try:
        tree = ast.parse(found.source.read_bytes(), str(found.source))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None)
        where = f"{found.source}:{line}" if line else f"{found.source}"
        got = getattr(error, "msg", None) or str(error) or "more nesting than Python parses"
        return [f"must be valid Python, but got: {got} ({where}). Correct the file."]
    function = found.reference.function if ":" in name else "build"
    definitions = [node for node in _top_level(tree.body) if function in _names(node) or "*" in _names(node)]
    if not definitions:
        defined = ", ".join(n for node in tree.body for n in _names(node) if isinstance(node, ast.FunctionDef))
        return [
            f"must name a function of {found.source.name}, but got {function!r}. Defined there: {defined or 'none'}."
        ]
    last = definitions[-1]
    if isinstance(last, ast.AsyncFunctionDef):
        return [f"must name a plain function, but got async def {function}. Remove async."]
    if isinstance(last, ast.FunctionDef) and not last.decorator_list:
        return list(_signature_problems(last, arguments))
    return []


def _signature_problems(function: ast.FunctionDef, arguments: Sequence[str]) -> Iterator[str]:
    args = function.args
    positional = [argument.arg for argument in (*args.posonlyargs, *args.args)]
    own_loop = positional[:1] == ["trial"]
    taken = ["trial"] if own_loop else ["seed", "device"]
    if len(positional) < len(taken) and args.vararg is None:
        rule = f"must take {' and '.join(taken)} as its first arguments"
        yield f"{rule}, but got {function.name}({ast.unparse(args)}). Example: def build(seed, device, *, width=64)."
        return
    n_only = len(args.posonlyargs)
    keywords = [*positional[max(len(taken), n_only) :], *(argument.arg for argument in args.kwonlyargs)]
    required = positional[len(taken) : len(positional) - len(args.defaults)]
    required += [a.arg for a, default in zip(args.kwonlyargs, args.kw_defaults, strict=True) if default is None]
    for name in arguments:
        if name not in keywords and (args.kwarg is None or name in positional):
            known = ", ".join(keywords) or "none"
            yield f"must take workload_args.{name}, but got {function.name}({ast.unparse(args)}). Keywords: {known}."
    for name in required:
        if name not in arguments:
            got = f"{function.name}({ast.unparse(args)})"
            yield f"must have a value for every argument, but got none for {name} of {got}. Add workload_args.{name}."


def _top_level(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run on import, those under if, try, with and loops included."""
    for node in body:
        yield node
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            for field in ("body", "orelse", "finalbody"):
                yield from _top_level(getattr(node, field, []))
            for handler in getattr(node, "handlers", []):
                yield from _top_level(handler.body)


def _names(node: ast.stmt) -> set[str]:
    """The names that a statement defines; ``*`` for an import of everything."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {node.name}
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return {alias.asname or alias.name.partition(".")[0] for alias in node.names}
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    found = {n.id for target in targets if target is not None for n in ast.walk(target) if isinstance(n, ast.Name)}
    return found


def _module_source(module: str, name: str) -> Path | None:
    """Where a module's source lies, found without importing it or its packages."""
    parts = module.split(".")
    try:
        spec = importlib.util.find_spec(parts[0]) if all(part.isidentifier() for part in parts) else None
    except ValueError:
        spec = None
    for depth in range(2, len(parts) + 1):
        folders = list(spec.submodule_search_locations or ()) if spec is not None else []
        spec = importlib.machinery.PathFinder.find_spec(".".join(parts[:depth]), folders) if folders else None
    if spec is None:
        _refuse(f"must name an importable module ({module} is none)", name, "A file is written FILE.py:FUNCTION.")
    return Path(spec.origin) if spec.has_location and spec.origin else None


def _built_in(name: str, folder: Path) -> FoundWorkload:
    built_ins = plugin_files("trial", "workloads")
    if name in built_ins:
        return _found(WorkloadReference(name), name, built_ins[name])
    is_file = name.endswith(".py") or os.path.isfile(folder / name)
    remedy = f"Name its function: {name}:build." if is_file else f"Built in: {', '.join(built_ins)}."
    _refuse("must be FILE.py:FUNCTION, package.module:function or a built-in name", name, remedy)


def _found(reference: WorkloadReference, name: str, source: Path | None) -> FoundWorkload:
    try:
        sha256 = hashlib.sha256(source.read_bytes()).hexdigest() if source is not None else None
    except OSError as error:
        _refuse(f"must name a file that can be read ({source}: {error.strerror})", name, "Check the permissions.")
    return FoundWorkload(reference, name, source, sha256)


def _refuse(rule: str, value: str, remedy: str) -> NoReturn:
    raise ConfigError(f"{rule}, but got {value!r}. {remedy}")
