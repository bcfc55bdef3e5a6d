"""The nouns: what a rule reads of one parameter (``ParameterState``), what the signals see of it (``AdaptiveTensor``).

In: a parameter with its group, state and counters. Out: numbers and references to tensors; nothing is changed.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor


class ParameterState(NamedTuple):
    """One parameter, its group and its state; ``counters`` are the 0-dimensional entries of the state, as numbers.

    ``l2`` is the coupled decay that enters the gradient, ``shrinkage`` the share that decoupled decay takes off the
    parameter per step, lr * weight_decay; ``clip_factor`` how much clipping shrank the last step.
    """

    param: Tensor
    group: Mapping[str, Any]
    state: Mapping[str, Any]
    counters: Mapping[str, float]
    l2: float
    shrinkage: float
    clip_factor: float

    @property
    def n_steps(self) -> int:
        """The count t of steps taken, that just taken included."""
        return int(self.counters["step"])

    @property
    def lr(self) -> float:
        """The learning rate η that the group holds now."""
        return float(self.group["lr"])

    @property
    def betas(self) -> tuple[float, float]:
        """(b1, b2) as numbers, for the rules that have both."""
        beta1, beta2 = self.group["betas"]
        return float(beta1), float(beta2)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdaptiveTensor:
    """One parameter tensor as its optimizer moves it: θ ← (1 - δ) θ - c · step / (√v̂ + ε).

    ``second_moment`` is v as kept, v ← b2 v + s g² with ``beta2`` and ``entry_share`` s; ``denominator_moment`` what v̂
    is made of: v, its running maximum, or v less the squared mean gradient. v̂ = denominator_moment / ``correction``.
    ``eps`` stands as in √v̂ + ε. ``step_size`` κ is the size of the step, before clipping and P⁻¹, that a gradient
    alternating between g and -g settles at, per g: what decides where the iteration diverges (``stability_weights``).
    ``is_preconditioned`` is False while the step is not divided by √v̂ + ε at all. ``l2``, ``shrinkage`` δ and
    ``clip_factor`` c are those of ``ParameterState``. ``first_moment`` is m ← b1 m + (1-b1) g with b1 = ``beta1``; None
    where the optimizer keeps no such average.
    """

    param: Tensor
    second_moment: Tensor
    denominator_moment: Tensor
    correction: float
    beta2: float
    entry_share: float
    eps: float
    n_steps: int
    step_size: float
    l2: float
    shrinkage: float
    clip_factor: float
    is_preconditioned: bool = True
    first_moment: Tensor | None = None
    beta1: float = 0.0

    @functools.cached_property
    def v_hat(self) -> Tensor:
        """The second moment that divides the step, in float32 at least."""
        moment = self.denominator_moment
        return moment.to(torch.promote_types(moment.dtype, torch.float32)) / self.correction

    @functools.cached_property
    def v_hat_root(self) -> Tensor:
        """√v̂."""
        return self.v_hat.sqrt()
