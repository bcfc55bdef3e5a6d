"""Adam and AdamW, amsgrad and InstrumentedAdamW's mitigations too."""

from __future__ import annotations

from stabletune.optim.second_moment_average import second_moment_average
from stabletune.optim.second_moment_reset import AGE
from stabletune.signals.optimizer_state.adaptive_tensor import AdaptiveTensor, ParameterState


def read_adam(found: ParameterState) -> AdaptiveTensor:
    """Read m ← b1 m + (1-b1) g,  θ ← (1-δ) θ - k m / (√v̂ + ε),  k = η/(1-b1^t),  v̂ = v/(1-b2^t).

    κ = k (1-b1)/(1+b1): an alternating gradient ±g leaves m alternating between ±g (1-b1)/(1+b1).

    With all but θ and m frozen and h an eigenvalue of P⁻¹H, (θ, m) moves by a matrix of trace 1-δ + b1 - k(1-b1)h and
    determinant b1 (1-δ). Eigenvalues stay within the unit circle while
        1 + tr + det = (1+b1) (2 - δ - κh) > 0   the edge, an eigenvalue at -1
        1 - tr + det = (1-b1) (δ + kh) > 0       for all h ≥ 0
        |det| < 1                                for all 0 < δ < 2
    so that only the first binds.

    A schedule of b2 and a reset change what enters v, ``second_moment_average``, and leave v̂ = v/(1-b2^t).

    Source: arXiv:2207.14484, section 2 (2/η becomes 38/η at b1 = 0.9); arXiv:2506.04805 for 1/(1-b1^t).
    """
    _, beta2 = found.betas
    decay, share = second_moment_average(
        found.n_steps,
        beta2=beta2,
        exponent=found.group.get("beta2_exponent"),
        age=None if found.group.get("second_moment_reset") is None else found.state.get(AGE),
    )
    moment = found.state["exp_avg_sq"]
    return AdaptiveTensor(
        param=found.param,
        second_moment=moment,
        denominator_moment=found.state["max_exp_avg_sq"] if found.group["amsgrad"] else moment,
        correction=1 - beta2**found.n_steps,
        beta2=decay,
        entry_share=share,
        eps=float(found.group["eps"]),
        n_steps=found.n_steps,
        step_size=averaged_step(found),
        l2=found.l2,
        shrinkage=found.shrinkage,
        clip_factor=found.clip_factor,
        first_moment=found.state["exp_avg"],
        beta1=found.betas[0],
    )


def averaged_step(found: ParameterState) -> float:
    """Return κ = η (1-b1) / ((1+b1) (1-b1^t)) of a step along the bias-corrected average of gradients."""
    beta1, _ = found.betas
    return found.lr * (1 - beta1) / ((1 + beta1) * (1 - beta1**found.n_steps))
