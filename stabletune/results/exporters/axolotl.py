"""YAML keys for an axolotl configuration."""

from __future__ import annotations

from typing import Any

from stabletune.results.exporters.huggingface import scheduler_keys
from stabletune.results.recommendation import Recommendation
from stabletune.results.translation import commented, origin_of, plan_of, wordless
from stabletune.results.yaml_files import as_yaml

SPOKEN = ("max_grad_norm",)
NEVER_CLIPS = 1.0e9


def export(recommendation: Recommendation) -> str:
    """Keys to merge into an axolotl configuration.

    Without clipping ``max_grad_norm`` is set out of reach: absent or 0 counts as unset there, which means 1.0.
    """
    settings, plan = recommendation.settings, plan_of(recommendation)
    clip = settings.get("max_grad_norm")
    keys: dict[str, Any] = {
        "optimizer": "adamw_torch",
        "learning_rate": settings["lr"],
        "adam_beta1": settings["beta1"],
        "adam_beta2": settings["beta2"],
        "adam_epsilon": settings["eps"],
        "weight_decay": settings["weight_decay"],
        "max_grad_norm": NEVER_CLIPS if clip is None else clip,
        **scheduler_keys(plan, name_key="lr_scheduler"),
        "warmup_ratio": plan.warmup_ratio,
    }
    if plan.full_steps:
        keys["max_steps"] = plan.full_steps
    notes = [*origin_of(recommendation), *wordless(settings, SPOKEN, "axolotl")]
    if clip is None:
        notes.append(f"No clipping: max_grad_norm is {NEVER_CLIPS:.0e}, because an unset one means 1.0.")
    return commented(notes) + as_yaml(keys)
