"""Python code for torch: torch.optim.AdamW, clip_grad_norm_ and a LambdaLR, as far as the settings need them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stabletune.hyperparameters import MITIGATIONS
from stabletune.results.recommendation import Recommendation
from stabletune.results.translation import SchedulePlan, commented, origin_of, plan_of, wordless
from stabletune.schedules import wsd_decay_steps

INSTRUMENTED = tuple(name for name in MITIGATIONS if name != "max_grad_norm")  # torch itself has no word for these
SPOKEN = ("amsgrad", *MITIGATIONS)
SHAPES = {
    "constant": "return 1.0",
    "linear": "return max(0, {full} - step) / {decay}",
    "cosine": "return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - {warmup}) / {decay})))",
    "wsd": "return min(1.0, max(0, {full} - step) / {last})",
}


def export(recommendation: Recommendation) -> str:
    """A module with ``build_optimizer(params)`` and, where the settings need them, ``build_schedule`` and clipping."""
    settings, plan = recommendation.settings, plan_of(recommendation)
    imports = ["import math"] if plan.name == "cosine" else []
    imports.append("import torch")
    if _mitigations(settings):
        imports.append("from stabletune import InstrumentedAdamW")
    parts = [
        commented([*origin_of(recommendation), *wordless(settings, SPOKEN, "torch")]) + "\n\n".join(imports) + "\n",
        _optimizer(settings),
    ]
    if not plan.is_flat:
        parts.append(_schedule(plan))
    if settings.get("max_grad_norm") is not None:
        parts.append(_clipping(float(settings["max_grad_norm"])))
    return "\n\n".join(parts)


def _mitigations(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: settings[name] for name in INSTRUMENTED if settings.get(name) is not None}


def _optimizer(settings: Mapping[str, Any]) -> str:
    mitigations = _mitigations(settings)
    name = "InstrumentedAdamW" if mitigations else "torch.optim.AdamW"
    arguments = {
        "lr": settings["lr"],
        "betas": (settings["beta1"], settings["beta2"]),
        "eps": settings["eps"],
        "weight_decay": settings["weight_decay"],
        "amsgrad": bool(settings.get("amsgrad", False)),
        **mitigations,
    }
    lines = "".join(f"        {key}={value!r},\n" for key, value in arguments.items())
    note = "    # torch's AdamW has no word for " + ", ".join(mitigations) + ".\n" if mitigations else ""
    return f"def build_optimizer(params):\n{note}    return {name}(\n        params,\n{lines}    )\n"


def _schedule(plan: SchedulePlan) -> str:
    shape = SHAPES[plan.name].format(
        full=plan.full_steps,
        warmup=plan.warmup_steps,
        decay=max(1, plan.full_steps - plan.warmup_steps),
        last=wsd_decay_steps(plan.full_steps),
    )
    warmup = f"        if step < {plan.warmup_steps}:\n            return step / {plan.warmup_steps}\n"
    return (
        "def build_schedule(optimizer):\n"
        f'    """{plan.name} over {plan.full_steps} steps; call its step() after each optimizer.step()."""\n\n'
        f"    def factor(step):\n{warmup if plan.warmup_steps else ''}        {shape}\n\n"
        "    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)\n"
    )


def _clipping(max_grad_norm: float) -> str:
    return (
        "def clip_gradients(params):\n"
        '    """Call between loss.backward() and optimizer.step()."""\n'
        f"    return torch.nn.utils.clip_grad_norm_(params, max_norm={max_grad_norm!r})\n"
    )
