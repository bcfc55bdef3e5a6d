"""Search spaces: hyperparameters mapped to ranges, named, in a file or inline.

Flows in: a name, a path or a mapping; flows out: a frozen ``SearchSpace``, or every mistake with its line. Nothing here
samples: ``study`` translates the ranges for its sampler.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from stabletune.document import Document, Keys, dotted, read_document, shown
from stabletune.errors import ConfigError
from stabletune.hyperparameters import HYPERPARAMETERS, WORKLOAD_ARGS, Hyperparameter
from stabletune.records import FORMAT_VERSION

Scale = Literal["linear", "log", "log_one_minus"]
SCALES: tuple[Scale, ...] = get_args(Scale)


@dataclasses.dataclass(frozen=True)
class FloatRange:
    """Real numbers from ``low`` to ``high``, uniform in x, log x or log(1 - x)."""

    low: float
    high: float
    scale: Scale = "linear"

    def contains(self, value: Any) -> bool:
        """Whether the range holds ``value``."""
        return _is_number(value) and self.low <= value <= self.high

    def to_dict(self) -> dict[str, Any]:
        """As a search space file writes it."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class IntRange:
    """Whole numbers from ``low`` to ``high``, both included, uniform in x or log x."""

    low: int
    high: int
    scale: Scale = "linear"

    def contains(self, value: Any) -> bool:
        """Whether the range holds ``value``."""
        return _is_number(value) and value == int(value) and self.low <= value <= self.high

    def to_dict(self) -> dict[str, Any]:
        """As a search space file writes it."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Choices:
    """One of a few values, without order."""

    values: tuple[Any, ...]

    def contains(self, value: Any) -> bool:
        """Whether ``value`` is one of the choices; true and 1 are different."""
        return any(type(value) is type(choice) and value == choice for choice in self.values)

    def to_dict(self) -> dict[str, Any]:
        """As a search space file writes it."""
        return {"choices": list(self.values)}


Range = FloatRange | IntRange | Choices


@dataclasses.dataclass(frozen=True)
class SearchSpace:
    """What is searched: hyperparameters and ``workload_args.NAME`` mapped to ranges; ``source`` says where from."""

    ranges: Mapping[str, Range]
    source: str = "inline"

    def contains(self, settings: Mapping[str, Any]) -> bool:
        """Whether every searched name has a value in ``settings`` and its range holds it."""
        return all(name in settings and found.contains(settings[name]) for name, found in self.ranges.items())

    @property
    def workload_args(self) -> tuple[str, ...]:
        """The searched arguments of the workload, without their prefix."""
        return tuple(n.removeprefix(WORKLOAD_ARGS) for n in self.ranges if n.startswith(WORKLOAD_ARGS))

    def to_dict(self) -> dict[str, Any]:
        """The mapping that gives this space again."""
        return {name: found.to_dict() for name, found in self.ranges.items()}


def list_search_spaces() -> dict[str, str]:
    """The named search spaces that come with stabletune, and what the first line of each says."""
    return {name: path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ") for name, path in _shipped().items()}


def load_search_space(source: str, *, folder: Path | None = None, where: str = "search_space") -> SearchSpace:
    """Read a search space by its name or its path, relative to ``folder``; ``where`` it is asked for, for the error.

    Raises:
        ConfigError: no such space, or mistakes in it, all together.
    """
    named = _shipped().get(source)
    path = named or Path(folder or "", os.path.expanduser(source))
    if not os.path.isfile(path):
        close = difflib.get_close_matches(source, list_search_spaces(), n=1)
        remedy = f"Did you mean `{close[0]}`?" if close else f"Names: {', '.join(list_search_spaces())}."
        raise ConfigError(f"{where}: must be a name, an existing file or a mapping, but got {source!r}. {remedy}")
    document = read_document(path)
    version = document.data.pop("version", FORMAT_VERSION)
    if version != FORMAT_VERSION or isinstance(version, bool):
        remedy = f"This stabletune reads version {FORMAT_VERSION} only."
        raise ConfigError(document.problem(("version",), f"must be {FORMAT_VERSION}", version, remedy))
    return parse_search_space(document, (), document.data, source=source)


def parse_search_space(document: Document, keys: Keys, mapping: Any, *, source: str = "inline") -> SearchSpace:
    """Read the mapping that stands at ``keys`` of ``document``.

    Raises:
        ConfigError: every mistake in it, with its line.
    """
    if not isinstance(mapping, dict) or not mapping:
        rule = f"{document.where(keys)}: {dotted(keys) or 'search space'}: must map hyperparameters to ranges"
        raise ConfigError(f"{rule}, but got {shown(mapping)}. Example: lr: {{low: 1.0e-4, high: 1.0e-1, scale: log}}.")
    ranges, problems = {}, []
    for name, written in mapping.items():
        parser = _RangeParser(document, (*keys, name), HYPERPARAMETERS.get(name))
        found = parser.parse(written) if _is_known(name) else None
        problems += parser.problems if _is_known(name) else [document.unknown((*keys, name), _known_names())]
        if found is not None:
            ranges[name] = found
    if not problems and all(isinstance(found, Choices) and len(found.values) == 1 for found in ranges.values()):
        rule = f"{document.where(keys)}: {dotted(keys) or 'search space'}: must leave something to be searched"
        problems.append(f"{rule}, but got one choice each. A single value belongs in baseline.")
    if problems:
        raise ConfigError(problems)
    return SearchSpace(ranges, source)


class _RangeParser:
    """Reads one range; what breaks a rule goes to ``problems``."""

    def __init__(self, document: Document, keys: Keys, hyperparameter: Hyperparameter | None) -> None:
        self.document = document
        self.keys = keys
        self.hyperparameter = hyperparameter
        self.problems: list[str] = []

    def parse(self, written: Any) -> Range | None:
        if not isinstance(written, dict):
            rule = "must be {low, high, scale} or {choices: [...]}"
            remedy = "A single value belongs in baseline."
            self._refuse(rule, written, remedy)
            return None
        known = ("choices",) if "choices" in written else ("low", "high", "scale")
        self.problems += [self.document.unknown((*self.keys, key), known) for key in written if key not in known]
        if self.problems:
            return None
        return self._choices(written["choices"]) if "choices" in written else self._interval(written)

    def _refuse(self, rule: str, value: Any, remedy: str, *below: str | int) -> None:
        self.problems.append(self.document.problem((*self.keys, *below), rule, value, remedy))

    def _choices(self, values: Any) -> Choices | None:
        if not isinstance(values, list) or not values:
            self._refuse("must be a list of at least one value", values, "Example: [0.9, 0.99].", "choices")
            return None
        for index, value in enumerate(values):
            if not (value is None or isinstance(value, (bool, str)) or _is_number(value)):
                rule = "must be a finite number, text, true, false or null"
                self._refuse(rule, value, "Correct or remove this choice.", "choices", index)
            elif self.hyperparameter is not None and not self.hyperparameter.accepts(value):
                self._refuse(self.hyperparameter.rule, value, "Correct or remove this choice.", "choices", index)
            elif value in values[:index]:  # Optuna cannot tell 1, 1.0 and true from each other
                self._refuse("must be different from the choices before it", value, "Remove it.", "choices", index)
        if self.problems:
            return None
        is_real = self.hyperparameter is not None and not self.hyperparameter.is_switch
        return Choices(tuple(float(value) if is_real and value is not None else value for value in values))

    def _interval(self, written: Mapping[str, Any]) -> FloatRange | IntRange | None:
        if self.hyperparameter is not None and self.hyperparameter.is_switch:
            self._refuse("must be {choices: [true, false]}", dict(written), "A switch has no low and high.")
            return None
        scale = written.get("scale", "linear")
        if scale not in SCALES:
            self._refuse(f"must be one of {', '.join(SCALES)}", scale, "Name one of them.", "scale")
        for end in ("low", "high"):
            if not _is_number(written.get(end)):
                self._refuse("must be a finite number", written.get(end), "Both low and high are needed.", end)
        if self.problems or not self._is_ordered(written["low"], written["high"], scale):
            return None
        if math.isinf(float(written["high"]) - float(written["low"])):
            rule = f"must be at most {sys.float_info.max:.2g} above low, which is {written['low']:g}"
            self._refuse(rule, written["high"], "Narrow the range.", "high")
            return None
        low, high = written["low"], written["high"]
        if self.hyperparameter is None and isinstance(low, int) and isinstance(high, int):
            return IntRange(low, high, scale)
        return FloatRange(float(low), float(high), scale)

    def _is_ordered(self, low: float, high: float, scale: Scale) -> bool:
        bounds = self.hyperparameter or Hyperparameter("", None, low=-math.inf)
        floor = bounds.low if scale == "linear" else max(bounds.low, 0.0)
        includes_floor = scale == "linear" and bounds.includes_low
        ceiling = min(bounds.high, 1.0) if scale == "log_one_minus" else bounds.high
        is_above = low > floor or (includes_floor and low == floor)
        if is_above and low < high < ceiling:
            return True
        left = "" if math.isinf(floor) else f"{floor:g} <= " if includes_floor else f"{floor:g} < "
        right = "" if math.isinf(ceiling) else f" < {ceiling:g}"
        if not is_above:
            remedy = f"Set low {'to' if includes_floor else 'above'} {floor:g}{' or more' if includes_floor else ''}."
        elif high >= ceiling:
            remedy = f"Set high to {ceiling - 1e-4:g} or less."
        else:
            remedy = "Set low below high. A single value belongs in baseline."
        self.problems.append(
            f"{self.document.where(self.keys)}: {dotted(self.keys)}: {left}low < high{right} must hold, "
            f"but got low={low!r}, high={high!r}. {remedy}"
        )
        return False


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _is_known(name: str) -> bool:
    return name in HYPERPARAMETERS or (
        name.startswith(WORKLOAD_ARGS) and name.removeprefix(WORKLOAD_ARGS).isidentifier()
    )


def _known_names() -> list[str]:
    return [*HYPERPARAMETERS, f"{WORKLOAD_ARGS}NAME"]


def _shipped() -> dict[str, Path]:
    """The files of search_spaces/: in the wheel beside this module, in a source checkout one folder up."""
    package = Path(__file__).resolve().parent
    inside = package / "search_spaces"
    folder = inside if inside.is_dir() else package.parent / "search_spaces"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}
