"""One study's configuration, checked and resolved so that it means the same in any folder of the machine.

Flows in: what ``reader`` found in config.yaml; flows out: a frozen ``Config``, settings for a trial, and plain data
that reads back as the same configuration.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator, Field, InstanceOf, PrivateAttr

from stabletune.config.sections import (
    LONGEST_NAME,
    AbsoluteFolder,
    Budget,
    FolderName,
    Objective,
    Resources,
    Rule,
    SamplerName,
    Schedule,
    Section,
    Signals,
    Text,
    Whole,
    a_number,
)
from stabletune.document import dotted
from stabletune.errors import without_password
from stabletune.hyperparameters import HYPERPARAMETERS, WORKLOAD_ARGS, default_settings
from stabletune.records import WorkloadReference
from stabletune.space import SearchSpace

ENVIRONMENT_NAME = re.compile(r"\$\{(\w+)\}")
FREE_ON_RESUME = ("budget", "output")


class Origin(NamedTuple):
    """Where a config came from, and its workload's name written so that it holds in any folder."""

    path: Path
    workload_name: str


class Config(Section):
    """A checked configuration: the keys of config.yaml, with workload and search space found."""

    version: Annotated[
        Literal[1], BeforeValidator(a_number), Rule("must be 1", "This stabletune reads version 1 only.")
    ] = 1
    name: Annotated[
        str,
        Field(pattern=r"^[A-Za-z0-9_-]+$", max_length=LONGEST_NAME),
        Rule(
            f"must be text of at most {LONGEST_NAME} letters, digits, - and _",
            "Quote a number, a date, yes, no, on, off.",
        ),
    ]
    workload: InstanceOf[WorkloadReference]
    workload_sha256: str | None = None
    workload_args: Annotated[
        dict[str, Any], Rule("must map argument names to values", "Example: {width: 64}."), Field(default_factory=dict)
    ]
    seed: Annotated[
        Whole, Field(ge=0, lt=2**32), Rule("must be a whole number, 0 <= seed < 2**32", "0 is as good as any.")
    ] = 0
    search_space: InstanceOf[SearchSpace]
    baseline: Annotated[dict[str, Any], Field(default_factory=dict)]
    budget: Budget = Budget()
    objective: Objective = Objective()
    schedule: Schedule = Schedule()
    signals: Signals = Signals.model_validate({})
    sampler: SamplerName = "tpe"
    resources: Resources = Resources()
    warm_start: Annotated[
        list[AbsoluteFolder],
        Rule("must be a list of folders of earlier searches", "Example: [runs/first]."),
        Field(default_factory=list),
    ]
    tensorboard: Annotated[
        bool, Field(strict=True), Rule("must be true or false", "true writes TensorBoard's event files too.")
    ] = False
    storage: Annotated[
        Text | None, Field(repr=False), Rule("must be null or an SQLAlchemy URL", "null keeps a journal file.")
    ] = None
    output: Annotated[FolderName, Rule("must be the path of a folder", "Leave it out for runs/NAME.")]

    _origin: Origin = PrivateAttr()

    def model_post_init(self, context: Origin, /) -> None:
        """Keep where it came from; the reader passes it as the validation context."""
        self._origin = context

    @property
    def path(self) -> Path:
        """The config file, absolute."""
        return self._origin.path

    @property
    def storage_url(self) -> str | None:
        """``storage`` with ``${ENV_NAME}`` expanded; never to be written anywhere.

        A password that a resolved config leaves out (``***``) is left to what the database's own client reads.
        """
        if self.storage is None:
            return None
        return ENVIRONMENT_NAME.sub(lambda name: os.environ[name[1]], self.storage.replace(":***@", "@"))

    def settings(self, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Every optimizer hyperparameter: torch's defaults, then schedule and baseline, then ``params``."""
        given = {"warmup_ratio": self.schedule.warmup_ratio, **self.baseline, **(params or {})}
        return default_settings() | {name: value for name, value in given.items() if name in HYPERPARAMETERS}

    def arguments(self, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The workload's keywords: ``workload_args``, then ``workload_args.NAME`` of baseline and ``params``."""
        given = {**self.baseline, **(params or {})}
        named = {name.removeprefix(WORKLOAD_ARGS): v for name, v in given.items() if name.startswith(WORKLOAD_ARGS)}
        return copy.deepcopy(self.workload_args) | named

    def resolved(self) -> dict[str, Any]:
        """Plain data that ``load_config`` reads back from any folder; secrets stay ``${ENV_NAME}``, passwords go."""
        data = self.model_dump(exclude={"workload", "search_space", "signals"})
        data["workload"] = self._origin.workload_name
        data["search_space"] = self.search_space.to_dict()
        data["signals"] = self.signals.model_dump(exclude_defaults=True)
        data["storage"] = self.storage and without_password(self.storage)
        return {key: data[key] for key in type(self).model_fields}

    def sha256(self) -> str:
        """Hash of what decides the result: the resolved content without budget and output."""
        kept = {key: value for key, value in self.resolved().items() if key not in FREE_ON_RESUME}
        return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()

    def difference(self, other: Mapping[str, Any]) -> list[str]:
        """The dotted keys in which ``other``, a resolved config, differs; those free on resume left out."""
        mine, theirs = _flat(self.resolved()), _flat(other)
        keys = [*mine, *(key for key in theirs if key not in mine)]
        return [dotted(key) for key in keys if key[0] not in FREE_ON_RESUME and not _same(key, mine, theirs)]


def _flat(data: Mapping[str, Any], above: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    flat: dict[tuple[str, ...], Any] = {}
    for key, value in data.items():
        flat |= _flat(value, (*above, key)) if isinstance(value, Mapping) and value else {(*above, key): value}
    return flat


def _same(key: tuple[str, ...], mine: Mapping[Any, Any], theirs: Mapping[Any, Any]) -> bool:
    """Whether both have the key with one value; nan is the same as nan."""
    if key not in mine or key not in theirs:
        return False
    here, there = mine[key], theirs[key]
    return bool(here == there or (here != here and there != there))
