"""RAdam: Adam whose step is shortened, and at first not preconditioned, while v rests on few gradients."""

from __future__ import annotations

from stabletune.signals.optimizer_state.adam import averaged_step
from stabletune.signals.optimizer_state.adaptive_tensor import AdaptiveTensor, ParameterState

_FEWEST_SAMPLES = 5.0  # torch's; the source has 4


def read_radam(found: ParameterState) -> AdaptiveTensor:
    """Read θ ← (1-δ) θ - r k m √(1-b2^t) / (√v + ε) where ρ_t > 5, else θ ← (1-δ) θ - k m;  m and k as in Adam.

    ρ_t = ρ - 2 t b2^t / (1-b2^t),  ρ = 2/(1-b2) - 1,  r² = (ρ_t-4)(ρ_t-2)ρ / ((ρ-4)(ρ-2)ρ_t)

    ε is added before the bias correction: in √v̂ + ε, v̂ = v/(1-b2^t), it stands as ε/√(1-b2^t). The iteration is that
    of ``read_adam`` with r k for k, P = 1 where there is no denominator, and so is its edge: κ is Adam's times r.

    Source: arXiv:1908.03265, algorithm 2.
    """
    _, beta2 = found.betas
    correction = 1 - beta2**found.n_steps
    rectification = _rectification(beta2, found.n_steps)
    moment = found.state["exp_avg_sq"]
    return AdaptiveTensor(
        param=found.param,
        second_moment=moment,
        denominator_moment=moment,
        correction=correction,
        beta2=beta2,
        entry_share=1 - beta2,
        eps=float(found.group["eps"]) / correction**0.5,
        n_steps=found.n_steps,
        step_size=averaged_step(found) * (1.0 if rectification is None else rectification),
        l2=found.l2,
        shrinkage=found.shrinkage,
        clip_factor=found.clip_factor,
        first_moment=found.state["exp_avg"],
        beta1=found.betas[0],
        is_preconditioned=rectification is not None,
    )


def _rectification(beta2: float, n_steps: int) -> float | None:
    """Return r, or None where ρ_t is too small for one."""
    longest = 2 / (1 - beta2) - 1
    length = longest - 2 * n_steps * beta2**n_steps / (1 - beta2**n_steps)
    if length <= _FEWEST_SAMPLES:
        return None
    squared = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
    return float(squared**0.5)
