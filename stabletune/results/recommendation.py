"""What a search hands to the user: settings, the evidence for them, and where they come from.

Flows in: values from ``study``, or ``recommended.yaml``. Flows out: that file, an optimizer, the exporters' input.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stabletune.errors import OutputFolderError
from stabletune.hyperparameters import HYPERPARAMETERS, MITIGATIONS, WORKLOAD_ARGS, scaled_groups
from stabletune.records import FORMAT_VERSION
from stabletune.results.atomic_files import replace_file
from stabletune.results.yaml_files import as_yaml, read_yaml_mapping
from stabletune.schedules import SCHEDULES, lr_factor, steps_of

if TYPE_CHECKING:
    import torch

REQUIRED = ("lr", "beta1", "beta2", "eps", "weight_decay")
LENGTHS = ("confirmed_steps", "confirm_seeds")
NUMBERS = ("spiky_run_rate_upper_95", "predicted_clean_rate", "lr_margin")
LONGEST = 2**53
KNOWN = ("optimizer", *REQUIRED, *MITIGATIONS, "amsgrad", "schedule", "workload_args")


@dataclasses.dataclass(frozen=True)
class Recommendation:
    """Settings that held at the full horizon on fresh seeds.

    ``settings``: every optimizer hyperparameter and the schedule; ``evidence``: the proof; ``provenance``: versions,
    device and seed. The keys are those of ``recommended.yaml``.
    """

    settings: Mapping[str, Any]
    evidence: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def load(cls, path: str | Path) -> Recommendation:
        """Read ``recommended.yaml``.

        Raises:
            OutputFolderError: the file is absent or breaks a rule; all mistakes together.
        """
        path = Path(path).expanduser()
        content = read_yaml_mapping(path)
        problems = list(_problems(content))
        if problems:
            raise OutputFolderError("\n".join(f"{path}: {problem}" for problem in problems))
        settings = {**content["settings"], **_numbers(content["settings"])}
        return cls(settings, content.get("evidence") or {}, content.get("provenance") or {})

    def save(self, path: str | Path) -> None:
        """Write ``recommended.yaml`` in one step."""
        replace_file(Path(path).expanduser(), as_yaml(self.to_dict()))

    def to_dict(self) -> dict[str, Any]:
        """The content of ``recommended.yaml`` as plain data."""
        return {
            "version": FORMAT_VERSION,
            "settings": _plain(self.settings),
            "evidence": _plain(self.evidence),
            "provenance": _plain(self.provenance),
        }

    def values(self) -> dict[str, Any]:
        """The settings under the names that a search space gives them."""
        named = {name: self.settings[name] for name in HYPERPARAMETERS if name in self.settings}
        schedule, arguments = self.settings.get("schedule") or {}, self.settings.get("workload_args") or {}
        warmup = {"warmup_ratio": schedule.get("warmup_ratio", 0.0)}
        return named | warmup | {WORKLOAD_ARGS + name: value for name, value in arguments.items()}

    def build_optimizer(self, params: Iterable[Any]) -> torch.optim.Optimizer:
        """These settings as an optimizer: torch's AdamW, or ``InstrumentedAdamW`` when a mitigation is set.

        Args:
            params: as torch's; of groups with ``lr_scale`` the lr is scaled, as in ``Training.param_groups``.
        """
        settings = self.settings
        params = scaled_groups(params, float(settings["lr"]))
        common: dict[str, Any] = {
            "lr": float(settings["lr"]),
            "betas": (float(settings["beta1"]), float(settings["beta2"])),
            "eps": float(settings["eps"]),
            "weight_decay": float(settings["weight_decay"]),
            "amsgrad": bool(settings.get("amsgrad", False)),
        }
        mitigations = {name: settings[name] for name in MITIGATIONS if settings.get(name) is not None}
        if mitigations:
            from stabletune.optim.instrumented_adamw import InstrumentedAdamW

            return InstrumentedAdamW(params, **common, **mitigations)
        from torch.optim import AdamW

        return AdamW(params, **common)

    def build_schedule(
        self, optimizer: torch.optim.Optimizer, *, total_steps: int | None = None
    ) -> torch.optim.lr_scheduler.LambdaLR:
        """The schedule that was proven, over ``total_steps`` or the horizon of the proof; step it after each step.

        Raises:
            ValueError: there is a warm-up or a decay, but neither length is known; or ``total_steps`` is no length.
        """
        from torch.optim.lr_scheduler import LambdaLR

        if total_steps is not None and not _is_length(total_steps):
            raise ValueError(
                f"total_steps: must be a whole number of at least 1, but got {total_steps!r}. "
                "Leave it out for the horizon of the proof."
            )
        schedule = self.settings.get("schedule") or {}
        name, ratio = str(schedule.get("name", "constant")), float(schedule.get("warmup_ratio") or 0.0)
        steps = total_steps or schedule.get("total_steps") or self.evidence.get("confirmed_steps")
        if steps is None and (name != "constant" or ratio):
            raise ValueError(
                f"total_steps: must be given for a {name} schedule with warm-up {ratio:g}, but got nothing."
            )
        full_steps = int(steps or 1)
        warmup_steps = steps_of(ratio, full_steps)
        return LambdaLR(optimizer, lambda step: lr_factor(name, step, warmup_steps=warmup_steps, full_steps=full_steps))


def settings_from(
    params: Mapping[str, Any], schedule: str, *, workload_args: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The ``settings`` of a recommendation from a trial's ``params`` (``warmup_ratio`` among them) and the schedule.

    ``workload_args`` are the searched ones only; without any the key is left out.
    """
    settings: dict[str, Any] = {"optimizer": "AdamW"}
    settings.update({name: params[name] for name in REQUIRED})
    settings.update({name: params.get(name) for name in MITIGATIONS})
    settings["amsgrad"] = bool(params.get("amsgrad", False))
    settings["schedule"] = {"name": schedule, "warmup_ratio": float(params.get("warmup_ratio") or 0.0)}
    return {**settings, "workload_args": dict(workload_args)} if workload_args else settings


def _problems(content: Mapping[str, Any]) -> Iterable[str]:
    """What is wrong with a loaded ``recommended.yaml``."""
    if content.get("version") != FORMAT_VERSION or isinstance(content.get("version"), bool):
        yield (
            f"version: must be {FORMAT_VERSION}, but got {content.get('version')!r}. "
            "Read the file with the stabletune that wrote it."
        )
    for section in ("settings", "evidence", "provenance"):
        if not isinstance(content.get(section, {}), dict):
            yield f"{section}: must be a mapping, but got {content[section]!r}. Restore the file."
    settings = content.get("settings")
    if not isinstance(settings, dict):
        if settings is None:
            yield "settings: must be there, but got nothing. Restore the file."
        return
    for name in settings:
        if name not in KNOWN:
            yield f"settings.{name}: must be a known setting, but got {settings[name]!r}. Known: {', '.join(KNOWN)}."
    for name in REQUIRED + MITIGATIONS:
        yield from _number_problem(name, settings.get(name))
    if not isinstance(settings.get("amsgrad", False), bool):
        yield f"settings.amsgrad: must be true or false, but got {settings['amsgrad']!r}. Write one of the two."
    if settings.get("optimizer", "AdamW") != "AdamW":
        yield f"settings.optimizer: must be AdamW, but got {settings['optimizer']!r}. Restore the file."
    if not isinstance(settings.get("workload_args", {}), dict):
        yield f"settings.workload_args: must be a mapping, but got {settings['workload_args']!r}. Restore the file."
    yield from _schedule_problems(settings.get("schedule", {"name": "constant"}))
    evidence, provenance = content.get("evidence") or {}, content.get("provenance") or {}
    if isinstance(evidence, dict) and isinstance(provenance, dict):
        yield from _proof_problems(evidence, provenance)


def _is_length(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LONGEST


def _are_two_lengths(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_length, value))


def _proof_problems(evidence: Mapping[str, Any], provenance: Mapping[str, Any]) -> Iterable[str]:
    """What is wrong with the numbers that reports and exports speak of."""
    for name in LENGTHS:
        if evidence.get(name) is not None and not _is_length(evidence[name]):
            yield f"evidence.{name}: must be a whole number of at least 1, but got {evidence[name]!r}. Restore it."
    objective = evidence.get("objective") or {}
    if not isinstance(objective, dict):
        yield f"evidence.objective: must be a mapping, but got {objective!r}. Restore it."
        objective = {}
    numbers = {f"evidence.{name}": evidence.get(name) for name in NUMBERS}
    numbers |= {f"evidence.objective.{name}": objective.get(name) for name in ("recommended", "baseline", "ratio")}
    for name, value in numbers.items():
        if value is not None and (isinstance(value, str) or _number(value) is None):
            yield f"{name}: must be null or a finite number, but got {value!r}. Restore it."
    restated = provenance.get("restated", [])
    if not isinstance(restated, list) or not all(isinstance(sentence, str) for sentence in restated):
        yield f"provenance.restated: must be a list of sentences, but got {restated!r}. Remove it."
    sizes = provenance.get("restated_sizes", {})
    if not isinstance(sizes, dict) or not all(_are_two_lengths(pair) for pair in sizes.values()):
        yield f"provenance.restated_sizes: must map names to two whole numbers above 0, but got {sizes!r}. Restore it."


def _number_problem(name: str, value: Any) -> Iterable[str]:
    if value is None and name in MITIGATIONS:
        return
    known, number = HYPERPARAMETERS[name], _number(value)
    if number is None or not known.accepts(number):
        yield f"settings.{name}: {known.rule}, but got {value!r}. Restore the value that was recommended."


def _schedule_problems(schedule: Any) -> Iterable[str]:
    if not isinstance(schedule, dict):
        yield f"settings.schedule: must be a mapping, but got {schedule!r}. Write {{name: constant}}."
        return
    if schedule.get("name") not in SCHEDULES:
        names = ", ".join(SCHEDULES)
        yield f"settings.schedule.name: must be one of {names}, but got {schedule.get('name')!r}. Name one of them."
    steps = schedule.get("total_steps")
    if steps is not None and not _is_length(steps):
        yield f"settings.schedule.total_steps: must be a whole number of at least 1, but got {steps!r}. Restore it."
    ratio = _number(schedule.get("warmup_ratio", 0.0))
    if ratio is None or not 0 <= ratio <= 1:
        yield (
            "settings.schedule.warmup_ratio: 0 <= warmup_ratio <= 1 must hold, "
            f"but got {schedule['warmup_ratio']!r}. Restore the value that was recommended."
        )


def _number(value: Any) -> float | None:
    """A finite number, also from a string such as ``1e-5``, which YAML 1.1 does not take for one."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _numbers(settings: Mapping[str, Any]) -> dict[str, float]:
    names = (name for name in REQUIRED + MITIGATIONS if settings.get(name) is not None)
    return {name: float(settings[name]) for name in names}


def _plain(value: Any) -> Any:
    """``value`` in the types YAML and JSON know: numpy scalars become Python's, tuples lists."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value.item() if hasattr(value, "item") else value
