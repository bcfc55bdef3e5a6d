"""YAML for the LightningCLI: the optimizer, and the Trainer's gradient clipping."""

from __future__ import annotations

from typing import Any

from stabletune.results.exporters.torch import INSTRUMENTED
from stabletune.results.recommendation import Recommendation
from stabletune.results.translation import commented, origin_of, plan_of, wordless
from stabletune.results.yaml_files import as_yaml

SPOKEN = ("max_grad_norm", "amsgrad", *INSTRUMENTED)


def export(recommendation: Recommendation) -> str:
    """``optimizer`` and ``trainer`` sections; settings beyond torch's AdamW name ``stabletune.InstrumentedAdamW``."""
    settings, plan = recommendation.settings, plan_of(recommendation)
    mitigations = {name: settings[name] for name in INSTRUMENTED if settings.get(name) is not None}
    arguments: dict[str, Any] = {
        "lr": settings["lr"],
        "betas": [settings["beta1"], settings["beta2"]],
        "eps": settings["eps"],
        "weight_decay": settings["weight_decay"],
        "amsgrad": bool(settings.get("amsgrad", False)),
        **mitigations,
    }
    trainer: dict[str, Any] = {
        "gradient_clip_val": settings.get("max_grad_norm"),
        "gradient_clip_algorithm": "norm",
    }
    if plan.full_steps:
        trainer["max_steps"] = plan.full_steps
    notes = [*origin_of(recommendation), *wordless(settings, SPOKEN, "Lightning")]
    if not plan.is_flat:
        notes.append(
            f"The {plan.name} schedule ({plan.warmup_steps} warm-up steps of {plan.full_steps}) has no word here: "
            'return it from configure_optimizers with interval "step"; `--format torch` prints it.'
        )
    name = "stabletune.InstrumentedAdamW" if mitigations else "torch.optim.AdamW"
    return commented(notes) + as_yaml({"optimizer": {"class_path": name, "init_args": arguments}, "trainer": trainer})
