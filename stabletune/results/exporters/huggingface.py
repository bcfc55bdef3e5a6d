"""YAML with the keyword arguments of Hugging Face's TrainingArguments."""

from __future__ import annotations

from typing import Any

from stabletune.results.recommendation import Recommendation
from stabletune.results.translation import SchedulePlan, commented, origin_of, plan_of, wordless
from stabletune.results.yaml_files import as_yaml
from stabletune.schedules import wsd_decay_steps

SPOKEN = ("max_grad_norm",)


def export(recommendation: Recommendation) -> str:
    """Keys for ``TrainingArguments``, readable with ``HfArgumentParser.parse_yaml_file``.

    ``max_grad_norm`` is always said: left out, the Trainer clips at 1.0; at 0.0 it does not clip.
    """
    settings, plan = recommendation.settings, plan_of(recommendation)
    keys: dict[str, Any] = {
        "optim": "adamw_torch",
        "learning_rate": settings["lr"],
        "adam_beta1": settings["beta1"],
        "adam_beta2": settings["beta2"],
        "adam_epsilon": settings["eps"],
        "weight_decay": settings["weight_decay"],
        "max_grad_norm": settings.get("max_grad_norm") or 0.0,
        "warmup_steps": plan.warmup_steps,
        **scheduler_keys(plan, name_key="lr_scheduler_type"),
    }
    notes = [
        *origin_of(recommendation),
        f"warmup_steps is warmup_ratio={plan.warmup_ratio:g} of max_steps: transformers 5 has no warmup_ratio.",
        "The Trainer applies weight_decay to no bias and no normalization weight.",
        *wordless(settings, SPOKEN, "TrainingArguments"),
    ]
    if plan.full_steps:
        keys["max_steps"] = plan.full_steps
    return commented(notes) + as_yaml(keys)


def scheduler_keys(plan: SchedulePlan, *, name_key: str) -> dict[str, Any]:
    """The name of the schedule, and the arguments that make its shape the one that was proven."""
    if plan.name == "wsd":
        return {
            name_key: "warmup_stable_decay",
            "lr_scheduler_kwargs": {"num_decay_steps": wsd_decay_steps(plan.full_steps), "decay_type": "linear"},
        }
    if plan.name == "constant":
        return {name_key: "constant" if plan.is_flat else "constant_with_warmup"}
    return {name_key: plan.name}
