"""Python code for optax: adamw, clip_by_global_norm and the schedule, as far as the settings need them."""

from __future__ import annotations

from stabletune.results.recommendation import Recommendation
from stabletune.results.translation import SchedulePlan, commented, origin_of, plan_of, wordless
from stabletune.schedules import wsd_decay_steps

SPOKEN = ("max_grad_norm",)


def export(recommendation: Recommendation) -> str:
    """A module that defines ``optimizer``, an optax gradient transformation."""
    settings, plan = recommendation.settings, plan_of(recommendation)
    lr, clip = float(settings["lr"]), settings.get("max_grad_norm")
    adamw = (
        f"optax.adamw(learning_rate={repr(lr) if plan.is_flat else 'schedule'}, b1={settings['beta1']!r}, "
        f"b2={settings['beta2']!r}, eps={settings['eps']!r}, weight_decay={settings['weight_decay']!r})"
    )
    notes = commented([*origin_of(recommendation), *wordless(settings, SPOKEN, "optax")])
    schedule = "" if plan.is_flat else f"schedule = {_schedule(plan, lr)}\n"
    optimizer = adamw
    if clip is not None:
        optimizer = f"optax.chain(\n    optax.clip_by_global_norm({float(clip)!r}),\n    {adamw},\n)"
    return f"{notes}import optax\n\n{schedule}optimizer = {optimizer}\n"


def _schedule(plan: SchedulePlan, lr: float) -> str:
    """Warm-up and shape joined at the step where the one ends and the other begins."""
    warmup, decay = plan.warmup_steps, max(1, plan.full_steps - plan.warmup_steps)
    pieces = [f"optax.linear_schedule(0.0, {lr!r}, {warmup})"] if warmup else []
    boundaries = [warmup] if warmup else []
    if plan.name == "cosine":
        pieces.append(f"optax.cosine_decay_schedule({lr!r}, {decay})")
    elif plan.name == "linear":
        pieces.append(f"optax.linear_schedule({lr!r}, 0.0, {decay})")
    else:
        pieces.append(f"optax.constant_schedule({lr!r})")
    if plan.name == "wsd":
        last = wsd_decay_steps(plan.full_steps)
        start = max(warmup, plan.full_steps - last)
        pieces.append(
            f"optax.linear_schedule({lr * (plan.full_steps - start) / last!r}, 0.0, {plan.full_steps - start})"
        )
        boundaries.append(start)
    if len(pieces) == 1:
        return pieces[0]
    return f"optax.join_schedules([{', '.join(pieces)}], boundaries={boundaries!r})"
