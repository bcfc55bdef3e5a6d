"""Adagrad, whose second moment is a sum that never decays."""

from __future__ import annotations

from stabletune.signals.optimizer_state.adaptive_tensor import AdaptiveTensor, ParameterState


def read_adagrad(found: ParameterState) -> AdaptiveTensor:
    """Read θ ← θ - η_t g / (√v + ε),  v = v_0 + Σ g²,  η_t = η / (1 + (t-1) lr_decay).

    κ = η_t. With v and t frozen and h an eigenvalue of P⁻¹H, θ moves by the factor 1 - η_t h, which is at -1 where
    κh = 2. Nothing ever leaves v, hence b2 = 1, share 1 and no bias correction.

    Source: Duchi et al., JMLR 12, 2011, figure 1.
    """
    moment = found.state["sum"]
    return AdaptiveTensor(
        param=found.param,
        second_moment=moment,
        denominator_moment=moment,
        correction=1.0,
        beta2=1.0,
        entry_share=1.0,
        eps=float(found.group["eps"]),
        n_steps=found.n_steps,
        step_size=found.lr / (1 + (found.n_steps - 1) * float(found.group["lr_decay"])),
        l2=found.l2,
        shrinkage=found.shrinkage,
        clip_factor=found.clip_factor,
    )
