"""What every exporter says besides the settings: the proof behind them, and what the format cannot express."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from stabletune.errors import ExportError
from stabletune.hyperparameters import MITIGATIONS
from stabletune.results.recommendation import Recommendation
from stabletune.results.restatement import RESTATED
from stabletune.schedules import steps_of


@dataclasses.dataclass(frozen=True)
class SchedulePlan:
    """The lr schedule in steps of the horizon at which the settings were proven, or for which they were restated."""

    name: str
    warmup_ratio: float
    warmup_steps: int
    full_steps: int

    @property
    def is_flat(self) -> bool:
        """Whether the lr never changes."""
        return self.name == "constant" and self.warmup_steps == 0


def plan_of(recommendation: Recommendation) -> SchedulePlan:
    """The schedule of a recommendation; raises ``ExportError`` if it has a shape but no horizon."""
    schedule = recommendation.settings.get("schedule") or {}
    name, ratio = str(schedule.get("name", "constant")), float(schedule.get("warmup_ratio") or 0.0)
    full_steps = schedule.get("total_steps") or recommendation.evidence.get("confirmed_steps")
    if full_steps is None and (name != "constant" or ratio):
        raise ExportError(
            f"evidence.confirmed_steps: must be given for a {name} schedule with warm-up {ratio:g}, but got nothing. "
            "Add the number of steps the schedule is for."
        )
    full_steps = int(full_steps or 0)
    return SchedulePlan(name, ratio, steps_of(ratio, full_steps), full_steps)


def origin_of(recommendation: Recommendation) -> list[str]:
    """The evidence in one sentence, and what was restated since."""
    return [_proof_of(recommendation), *recommendation.provenance.get(RESTATED, ())]


def _proof_of(recommendation: Recommendation) -> str:
    evidence, version = recommendation.evidence, recommendation.provenance.get("stabletune")
    author = f"stabletune {version}" if version else "stabletune"
    if not {"confirm_seeds", "spiky_runs", "confirmed_steps"} <= set(evidence):
        return f"Settings from {author}, without a proof on record."
    return (
        f"Recommended by {author}: {evidence['spiky_runs']} of {evidence['confirm_seeds']} fresh runs of "
        f"{evidence['confirmed_steps']} steps had a loss spike."
    )


def wordless(settings: Mapping[str, Any], spoken: Collection[str], tool: str) -> list[str]:
    """A sentence for each setting in force that ``tool`` has no word for; ``spoken`` are those it has."""
    in_force = {name: settings.get(name) for name in (*MITIGATIONS, "amsgrad")}
    sentences = [
        f"{name}={value!r} has no word in {tool}: without it these are not the settings that were proven. "
        "Recommendation.load(...).build_optimizer(...) of stabletune keeps it."
        for name, value in in_force.items()
        if value is not None and value is not False and name not in spoken
    ]
    arguments = settings.get("workload_args") or {}
    return sentences + [f"The workload ran with {name}={value!r}." for name, value in arguments.items()]


def commented(sentences: Iterable[str]) -> str:
    """Each sentence as one ``#`` line, whatever it holds."""
    return "".join(f"# {' '.join(sentence.split())}\n" for sentence in sentences)
