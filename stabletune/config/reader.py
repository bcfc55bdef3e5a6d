"""Reads config.yaml part by part, so that one mistake hides no other, and no process starts before all are mended.

Flows in: the file, ``--set`` overrides and the environment; flows out: a ``Config``, or every mistake at once.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from stabletune.config.config import ENVIRONMENT_NAME, Config, Origin
from stabletune.config.preflight import FoundWorkload, check_workload, find_workload
from stabletune.config.sections import IN_QUOTES, Rule, Section
from stabletune.document import Document, Keys, apply_overrides, dotted, read_document
from stabletune.errors import ConfigError
from stabletune.hyperparameters import EXCLUDES_SHADOWS, HYPERPARAMETERS, WORKLOAD_ARGS
from stabletune.space import SearchSpace, load_search_space, parse_search_space

_MAPPINGS = ("workload_args", "baseline", "budget", "objective", "schedule", "signals", "resources")
_OURS = "workload_sha256"  # in resolved configs only; always computed anew


def load_config(path: str | Path, *, overrides: Sequence[str] = (), output: str | Path | None = None) -> Config:
    """Read and check a configuration; nothing of the user's is imported.

    Args:
        path: the YAML file.
        overrides: ``key.key=value`` strings, values in YAML.
        output: takes the place of the config's own output folder.

    Raises:
        ConfigError: every mistake, each with its file and line.
    """
    document = read_document(path)
    problems = apply_overrides(document, overrides)
    if output is not None:
        document.data["output"] = str(output)
        document.origins[("output",)] = "--output"
    return _Reader(document, Path(path).resolve(), problems).read()


class _Reader:
    """Checks one document part by part and gathers what is wrong in ``problems``."""

    def __init__(self, document: Document, path: Path, problems: list[str]) -> None:
        self.document = document
        self.path = path
        self.problems = problems
        self.data = {key: {} if value is None and key in _MAPPINGS else value for key, value in document.data.items()}

    def read(self) -> Config:
        space = self._search_space()
        workload = self._workload()
        baseline = self._baseline()
        passed = {name: value for name, value in baseline.items() if name.startswith(WORKLOAD_ARGS)}
        self.problems += self._date_problems(("workload_args",), self.data.get("workload_args"))
        self.problems += self._date_problems(("baseline",), passed)
        self.problems += self._storage_problems()
        self.problems += self._tradeoff_problems()
        self.problems += self._shadow_problems(space, baseline)
        if workload is not None:
            where = f"{self.document.where(('workload',))}: workload"
            found = check_workload(workload, self._arguments(space, baseline))
            self.problems += [f"{where}: {problem}" for problem in found]
        parts = {
            "search_space": space,
            "workload": workload and workload.reference,
            "workload_sha256": workload and workload.sha256,
            "baseline": baseline,
        }
        if self.data.get("output") is None:
            parts["output"] = f"runs/{self.data.get('name')}"
        config = None
        try:
            origin = Origin(self.path, workload.name if workload else "")
            config = Config.model_validate(self.data | parts, context=origin)
        except ValidationError as error:
            self.problems += filter(None, (self._field_problem(detail) for detail in error.errors()))
        if self.problems or config is None:
            raise ConfigError(list(dict.fromkeys(self.problems)))
        return config

    def _tradeoff_problems(self) -> Iterator[str]:
        objective = self.data.get("objective")
        if isinstance(objective, dict) and objective.get("tradeoff") is True and self.data.get("sampler") == "cmaes":
            rule, remedy = "must know two objectives for objective.tradeoff", "Use tpe, gp or nsga2."
            yield self.document.problem(("sampler",), rule, "cmaes", remedy)

    def _search_space(self) -> SearchSpace | None:
        written = self.data.get("search_space")
        keys = ("search_space",)
        if written is None:
            self.problems.append(self.document.missing(keys, "Add `search_space: adam_lr_beta2`."))
            return None
        try:
            if isinstance(written, str):
                where = f"{self.document.where(keys)}: search_space"
                return load_search_space(written, folder=self.path.parent, where=where)
            return parse_search_space(self.document, keys, written)
        except ConfigError as error:
            self.problems += error.problems
        return None

    def _workload(self) -> FoundWorkload | None:
        written = self.data.get("workload")
        keys = ("workload",)
        if written is None:
            self.problems.append(self.document.missing(keys, "Add `workload: workload.py:build`."))
        elif not isinstance(written, str):
            self.problems.append(self.document.problem(keys, "must be text", written, "Example: workload.py:build."))
        else:
            try:
                return find_workload(written, self.path.parent)
            except ConfigError as error:
                self.problems += [f"{self.document.where(keys)}: workload: {problem}" for problem in error.problems]
        return None

    def _arguments(self, space: SearchSpace | None, baseline: Any) -> list[str]:
        """The names of every keyword the workload will be called with, by any trial."""
        fixed = self.data.get("workload_args")
        named = [name.removeprefix(WORKLOAD_ARGS) for name in baseline or () if name.startswith(WORKLOAD_ARGS)]
        searched = space.workload_args if space else ()
        return list(dict.fromkeys((*(fixed if isinstance(fixed, dict) else ()), *named, *searched)))

    def _baseline(self) -> dict[str, Any]:
        """The baseline with its numbers as floats."""
        written = self.data.get("baseline", {})
        if not isinstance(written, dict):
            remedy = "Example: {lr: 1.0e-3, beta2: 0.999}."
            self.problems.append(
                self.document.problem(("baseline",), "must map hyperparameters to values", written, remedy)
            )
            return {}
        self.problems += self._baseline_problems(written)
        is_real = {name: not known.is_switch for name, known in HYPERPARAMETERS.items()}
        return {
            name: float(value) if is_real.get(name) and type(value) is int else value for name, value in written.items()
        }

    def _baseline_problems(self, baseline: dict[str, Any]) -> Iterator[str]:
        for name, value in baseline.items():
            keys = ("baseline", name)
            hyperparameter = HYPERPARAMETERS.get(name)
            if hyperparameter is None:
                if not name.startswith(WORKLOAD_ARGS):
                    yield self.document.unknown(keys, HYPERPARAMETERS)
            elif not hyperparameter.accepts(value):
                yield self.document.problem(keys, hyperparameter.rule, value, "Give the value in use today.")

    def _date_problems(self, keys: Keys, value: Any) -> Iterator[str]:
        """Dates among the workload's keywords, which no record and no JSON holds."""
        if isinstance(value, datetime.date):
            rule = "must be a number, text, true, false, null, or a list or mapping of these"
            yield self.document.problem(keys, rule, value, "Put a date in quotes.")
        if isinstance(value, dict):
            for key, below in value.items():
                yield from self._date_problems((*keys, key), below)
        if isinstance(value, list):
            for index, below in enumerate(value):
                yield from self._date_problems((*keys, index), below)

    def _storage_problems(self) -> Iterator[str]:
        storage = self.data.get("storage")
        if not isinstance(storage, str) or not storage:
            return
        missing = [name for name in ENVIRONMENT_NAME.findall(storage) if name not in os.environ]
        for name in missing:
            where = self.document.where(("storage",))
            rule = f"the environment variable {name} must be set"
            yield f"{where}: storage: {rule}, but got none of that name. Run `export {name}=...` first."
        if not missing and "://" not in ENVIRONMENT_NAME.sub(lambda name: os.environ[name[1]], storage):
            remedy = "Example: sqlite:///study.db."
            yield self.document.problem(("storage",), "must be an SQLAlchemy URL", storage, remedy)

    def _shadow_problems(self, space: SearchSpace | None, baseline: dict[str, Any]) -> Iterator[str]:
        signals = self.data.get("signals")
        if not isinstance(signals, dict) or signals.get("shadow_beta2") is None:
            return
        for name, reason in EXCLUDES_SHADOWS.items():
            if baseline.get(name) is not None or (space is not None and name in space.ranges):
                rule = f"must be null with {name} in search_space or baseline, which {reason}"
                keys = ("signals", "shadow_beta2")
                yield self.document.problem(keys, rule, signals["shadow_beta2"], "Remove one of the two.")

    def _field_problem(self, error: Any) -> str | None:
        """A pydantic error in the reader's words; None where the other checks have said it."""
        keys = error["loc"]
        if keys[0] in ("workload", "search_space") or (keys[0] == "output" and self.data.get("output") is None):
            return None
        model: type[Section] = Config
        for depth, key in enumerate(keys, start=1):
            field = model.model_fields.get(key)
            if field is None:
                return self.document.unknown(keys[:depth], [known for known in model.model_fields if known != _OURS])
            rule = next((item for item in field.metadata if isinstance(item, Rule)), None)
            if rule is not None:
                if error["type"] == "missing":
                    return self.document.missing(keys, f"Add `{dotted(keys)}: ...`.")
                remedy = "Remove the quotes." if error["type"] == IN_QUOTES else rule.remedy
                return self.document.problem(keys[:depth], rule.says, error["input"], remedy)
            if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
                model = field.annotation
        if error["type"] == "conflict":
            said = error["ctx"]
            return self.document.problem((*keys, said["key"]), said["rule"], said["value"], said["remedy"])
        return self.document.problem(
            keys, "must be a mapping", error["input"], f"Its keys: {', '.join(model.model_fields)}."
        )
