"""What config.yaml may say, as frozen pydantic models; every field carries its rule in the reader's words."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, NoReturn

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from stabletune.config.plugins import plugin_files
from stabletune.hyperparameters import MOST_SHADOWS
from stabletune.schedules import ScheduleName

Metric = Literal["final_loss", "loss_auc", "steps_to_target"]
DEFAULT_OVERHEAD = 0.15
IN_QUOTES: Final = "number_in_quotes"
LONGEST_NAME = 255  # bytes of one file or folder
_ADDRESS = re.compile(r"local|auto|(ray://)?(\[[0-9a-fA-F:]+\]|[\w.-]+):(?P<port>\d{1,5})")


SAMPLERS = tuple(plugin_files("study", "samplers"))


class Rule(NamedTuple):
    """What a value must be, reading on from its key, and what to do about it."""

    says: str
    remedy: str


def _is_written_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def a_number(value: Any) -> Any:
    """Keep true, false and text in quotes from passing for numbers; what is a number but for them has its own type."""
    if isinstance(value, str) and _is_written_number(value):
        raise PydanticCustomError(IN_QUOTES, "a number in quotes")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("not a number")
    return value


def _an_address(value: Any) -> Any:
    found = _ADDRESS.fullmatch(value) if isinstance(value, str) else None
    if found is None or not 0 < int(found["port"] or 1) < 2**16:
        raise ValueError("not an address")
    return value


def _a_path(value: str) -> str:
    """Refuse what no file system takes, before anything is written."""
    try:
        names = Path(value).expanduser().parts
    except RuntimeError as error:
        raise ValueError("no user of that name") from error
    if "\0" in value or any(len(os.fsencode(name)) > LONGEST_NAME for name in names):
        raise ValueError("not a path")
    return value


def _absolute(value: str) -> str:
    return str(Path(value).expanduser().absolute())


def _a_sampler(value: Any) -> Any:
    if value not in SAMPLERS:
        raise ValueError("not a sampler")
    return value


def _distinct(values: list[float]) -> list[float]:
    if len(set(values)) < len(values):
        raise ValueError("a value appears twice")
    return values


_AT_LEAST_ONE = Rule("must be a whole number of at least 1", "Set it to 1 or more.")
_POSITIVE = Rule("must be a number above 0", "Set a positive number.")
_SHARE = Rule("must lie in 0 <= share < 1", "0.05 is 5 % of the full horizon.")

SamplerName = Annotated[
    str, BeforeValidator(_a_sampler), Rule(f"must be one of {', '.join(SAMPLERS)}", "Name one of them.")
]
Whole = Annotated[int, BeforeValidator(a_number)]
Real = Annotated[float, BeforeValidator(a_number), Field(allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1)]
FolderName = Annotated[Text, AfterValidator(_a_path)]
AbsoluteFolder = Annotated[FolderName, AfterValidator(_absolute)]
Count = Annotated[Whole, Field(ge=1, lt=2**31), Rule("must be a whole number, 1 <= n < 2**31", "Set it to 1 or more.")]


class Section(BaseModel):
    """A mapping of known keys that cannot change once read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def _conflict(self, key: str, rule: str, remedy: str) -> NoReturn:
        """Raise for a key that breaks a rule together with another."""
        value = getattr(self, key)
        raise PydanticCustomError("conflict", "conflict", {"key": key, "rule": rule, "value": value, "remedy": remedy})


class Budget(Section):
    """How much may be spent, and how much is to be proven."""

    trials: Count = 40
    trial_steps: Count = 500
    full_steps: Count = 2500
    confirm_seeds: Count = 5
    seeds_per_trial: Count = 1
    wall_minutes: Annotated[
        Annotated[Real, Field(gt=0)] | None, Rule("must be null or a number above 0", "null sets no limit.")
    ] = None
    trial_minutes: Annotated[
        Annotated[Real, Field(gt=0)] | None,
        Rule("must be null or a number above 0", "null ends a run that makes no step for half an hour."),
    ] = None
    checkpoint_minutes: Annotated[
        Annotated[Real, Field(ge=0)] | None,
        Rule("must be null or a number of at least 0", "null saves no proof run while it runs."),
    ] = 1.0

    @model_validator(mode="after")
    def _check_horizon(self) -> Budget:
        if self.trial_steps > self.full_steps:
            rule = f"must be at most full_steps, which is {self.full_steps}"
            self._conflict("trial_steps", rule, "Shorten the trial or lengthen budget.full_steps.")
        return self


class Objective(Section):
    """What is minimized; with ``tradeoff`` the risk of a spike beside it, as a second objective."""

    metric: Annotated[Metric, Rule("must be one of final_loss, loss_auc, steps_to_target", "Name one of them.")] = (
        "final_loss"
    )
    source: Annotated[Literal["train", "eval"], Rule("must be train or eval", "Name one of them.")] = "train"
    target: Annotated[Real | None, Rule("must be null or a finite number", "Give the loss to be reached.")] = None
    tradeoff: Annotated[
        bool, Field(strict=True), Rule("must be true or false", "true searches speed and stability side by side.")
    ] = False

    @model_validator(mode="after")
    def _check_target(self) -> Objective:
        if self.metric == "steps_to_target" and self.target is None:
            self._conflict("target", "must be a number for steps_to_target", "Give the loss to be reached.")
        return self


class Schedule(Section):
    """The learning rate over the full horizon."""

    name: Annotated[ScheduleName, Rule("must be one of constant, cosine, linear, wsd", "Name one of them.")] = (
        "constant"
    )
    warmup_ratio: Annotated[Real, Field(ge=0, lt=1), _SHARE] = 0.0


class Signals(Section):
    """How much measuring is done: a share of the training cost, or every so many steps; one of the two is None.

    ``shadow_beta2`` adds, at each measurement, what it tells of other values of beta2; ``sharpness`` the raw Hessian's.
    """

    overhead: Annotated[
        Annotated[Real, Field(gt=0, le=1)] | None, Rule("must lie in 0 < overhead <= 1", "0.15 spends 15 % on top.")
    ] = None
    every: Annotated[Annotated[Whole, Field(ge=1)] | None, _AT_LEAST_ONE] = None
    shadow_beta2: Annotated[
        Annotated[
            list[Annotated[Real, Field(gt=0, lt=1)]],
            Field(min_length=1, max_length=MOST_SHADOWS),
            AfterValidator(_distinct),
        ]
        | None,
        Rule(
            f"must be null or a list of 1 to {MOST_SHADOWS} different numbers, each 0 < beta2 < 1",
            "Example: [0.9, 0.99].",
        ),
    ] = None
    shadow_exact: Annotated[bool, Field(strict=True), Rule("must be true or false", "true costs products.")] = False
    sharpness: Annotated[bool, Field(strict=True), Rule("must be true or false", "true costs products.")] = False

    @model_validator(mode="before")
    @classmethod
    def _fill_overhead(cls, written: Any) -> Any:
        if isinstance(written, dict) and written.get("overhead") is None and written.get("every") is None:
            return {**written, "overhead": DEFAULT_OVERHEAD}
        return written

    @model_validator(mode="after")
    def _check_one(self) -> Signals:
        if self.overhead is not None and self.every is not None:
            rule = f"must not be given together with overhead ({self.overhead})"
            self._conflict("every", rule, "Remove one of the two.")
        if self.shadow_exact and self.shadow_beta2 is None:
            self._conflict("shadow_exact", "must not be true without shadow_beta2", "Name the values of beta2.")
        return self


class Resources(Section):
    """What one trial gets, how many run at once, and on which Ray cluster."""

    cpus_per_trial: Annotated[Real, Field(gt=0), _POSITIVE] = 1.0
    gpus_per_trial: Annotated[Real, Field(ge=0), Rule("must be a number of at least 0", "0.25 shares one GPU.")] = 0.0
    memory_gib_per_trial: Annotated[
        Annotated[Real, Field(gt=0)] | None,
        Rule("must be null or a number above 0", "null ends a trial only where the machine's memory is used up."),
    ] = None
    max_concurrent: Annotated[
        Annotated[Whole, Field(ge=1)] | None,
        Rule("must be null or a whole number of at least 1", "null runs as many as the resources allow."),
    ] = None
    address: Annotated[
        str,
        BeforeValidator(_an_address),
        Rule("must be local, auto, HOST:PORT or ray://HOST:PORT", "local starts Ray on this machine."),
    ] = "local"

    @model_validator(mode="after")
    def _check_gpu_share(self) -> Resources:
        if self.gpus_per_trial > 1 and self.gpus_per_trial != int(self.gpus_per_trial):
            self._conflict("gpus_per_trial", "must be whole above 1", "Only one GPU can be shared by several trials.")
        return self
