"""NAdam: Adam with Nesterov's momentum on a schedule of its own."""

from __future__ import annotations

from stabletune.signals.optimizer_state.adaptive_tensor import AdaptiveTensor, ParameterState

_SCHEDULE_BASE = 0.96  # torch's, from the source


def read_nadam(found: ParameterState) -> AdaptiveTensor:
    """Read m ← b1 m + (1-b1) g,  θ ← (1-δ) θ - (a g + n m) / (√v̂ + ε),  v̂ = v/(1-b2^t).

    a = η (1-μ_t) / (1 - M),  n = η μ_{t+1} / (1 - M μ_{t+1}),  μ_t = b1 (1 - ½ 0.96^{tψ}),  M = μ_1 ... μ_t
    κ = a + n (1-b1)/(1+b1): ±g through the gradient itself and through m.

    With all but θ and m frozen and h an eigenvalue of P⁻¹H, (θ, m) moves by a matrix of trace
    1-δ + b1 - (a + n(1-b1))h and determinant b1 (1-δ-ah). Eigenvalues stay within the unit circle while
        1 + tr + det = (1+b1) (2 - δ - κh) > 0   the edge, an eigenvalue at -1
        1 - tr + det = (1-b1) (δ + (a+n)h) > 0   for all h ≥ 0
        |det| < 1                                where ah ≤ κh < 2-δ: -b1 < det < b1
    so that only the first binds.

    Source: Dozat, "Incorporating Nesterov momentum into Adam", 2016, with torch's ``mu_product`` for M.
    """
    beta1, beta2 = found.betas
    t, decay, product = found.n_steps, float(found.group["momentum_decay"]), found.counters["mu_product"]
    momentum, next_momentum = (beta1 * (1 - 0.5 * _SCHEDULE_BASE ** (s * decay)) for s in (t, t + 1))
    direct = found.lr * (1 - momentum) / (1 - product)
    averaged = found.lr * next_momentum / (1 - product * next_momentum)
    moment = found.state["exp_avg_sq"]
    return AdaptiveTensor(
        param=found.param,
        second_moment=moment,
        denominator_moment=moment,
        correction=1 - beta2**t,
        beta2=beta2,
        entry_share=1 - beta2,
        eps=float(found.group["eps"]),
        n_steps=t,
        step_size=direct + averaged * (1 - beta1) / (1 + beta1),
        l2=found.l2,
        shrinkage=found.shrinkage,
        clip_factor=found.clip_factor,
        first_moment=found.state["exp_avg"],
        beta1=found.betas[0],
    )
