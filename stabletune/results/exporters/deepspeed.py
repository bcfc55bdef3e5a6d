"""JSON sections for a DeepSpeed configuration: optimizer, scheduler and gradient_clipping."""

from __future__ import annotations

import json
from typing import Any

from stabletune.results.recommendation import Recommendation
from stabletune.results.translation import SchedulePlan, origin_of, plan_of, wordless

SPOKEN = ("max_grad_norm",)


def export(recommendation: Recommendation) -> str:
    """Sections to merge; JSON has no comments, so what needs saying is under ``stabletune_notes``: delete it freely.

    ``gradient_clipping`` 0.0 is off. Its warm-ups are logarithmic unless told otherwise.
    """
    settings, plan = recommendation.settings, plan_of(recommendation)
    notes = [*origin_of(recommendation), *wordless(settings, SPOKEN, "DeepSpeed")]
    content: dict[str, Any] = {
        "optimizer": {
            "type": "AdamW",
            "params": {
                "lr": settings["lr"],
                "betas": [settings["beta1"], settings["beta2"]],
                "eps": settings["eps"],
                "weight_decay": settings["weight_decay"],
            },
        },
        "gradient_clipping": settings.get("max_grad_norm") or 0.0,
    }
    if plan.name == "wsd":
        notes.append(
            f"The wsd schedule ({plan.warmup_steps} warm-up steps of {plan.full_steps}) has no word in DeepSpeed: "
            "pass the one that `--format torch` prints to deepspeed.initialize(lr_scheduler=...)."
        )
    elif not plan.is_flat:
        content["scheduler"] = _scheduler(plan, lr=float(settings["lr"]))
    return json.dumps({**content, "stabletune_notes": notes}, indent=2, allow_nan=False)


def _scheduler(plan: SchedulePlan, *, lr: float) -> dict[str, Any]:
    warmup = {"warmup_num_steps": plan.warmup_steps, "warmup_type": "linear"}
    if plan.name == "cosine":
        params = {"total_num_steps": plan.full_steps, "warmup_min_ratio": 0.0, "cos_min_ratio": 0.0, **warmup}
        return {"type": "WarmupCosineLR", "params": params}
    params = {"warmup_min_lr": 0.0, "warmup_max_lr": lr, **warmup}
    if plan.name == "linear":
        return {"type": "WarmupDecayLR", "params": {"total_num_steps": plan.full_steps, **params}}
    return {"type": "WarmupLR", "params": params}
