"""The slow twin of InstrumentedAdamW's mitigations: their formulas, one coordinate at a time, in plain numbers.

It keeps the bias-corrected v̂ itself, v̂ ← (1-s) v̂ + s g², where the package keeps v and corrects it.
"""

from __future__ import annotations

import dataclasses
import math


@dataclasses.dataclass
class Tensor:
    """One parameter tensor as a list of coordinates, with its averages of g and g²."""

    values: list[float]
    m: list[float] = dataclasses.field(default_factory=list)
    v_hat: list[float] = dataclasses.field(default_factory=list)
    largest: list[float] = dataclasses.field(default_factory=list)
    t: int = 0
    age: int = 0
    n_stale: int = 0

    def __post_init__(self) -> None:
        self.m, self.v_hat, self.largest = ([0.0] * len(self.values) for _ in range(3))


@dataclasses.dataclass
class MitigatedAdamW:
    """AdamW with second_moment_clip, second_moment_reset, beta2_exponent, amsgrad and update_clip."""

    lr: float
    betas: tuple[float, float]
    eps: float = 1e-8
    weight_decay: float = 0.01
    amsgrad: bool = False
    update_clip: float | None = None
    second_moment_clip: float | None = None
    second_moment_reset: float | None = None
    beta2_exponent: float | None = None

    def step(self, tensor: Tensor, grads: list[float]) -> None:
        b1, b2 = self.betas
        g = [self.bounded(grad, v, tensor.t) for grad, v in zip(grads, tensor.v_hat, strict=True)]
        self.look(tensor, g)
        tensor.t += 1
        tensor.age += 1
        share = self.share(tensor)
        weight = 1 - b2**tensor.t  # torch's correction, which only amsgrad's maximum sees
        for i, grad in enumerate(g):
            tensor.m[i] = b1 * tensor.m[i] + (1 - b1) * grad
            tensor.v_hat[i] = (1 - share) * tensor.v_hat[i] + share * grad * grad
            tensor.largest[i] = max(tensor.largest[i], tensor.v_hat[i] * weight)
        v_hat = [top / weight for top in tensor.largest] if self.amsgrad else tensor.v_hat
        lr = self.lr
        if self.update_clip is not None:
            squares = [grad * grad / max(v, self.eps**2) for grad, v in zip(g, v_hat, strict=True)]
            lr /= max(1.0, math.sqrt(sum(squares) / len(squares)) / self.update_clip)
        for i, v in enumerate(v_hat):
            direction = tensor.m[i] / (1 - b1**tensor.t) / (math.sqrt(v) + self.eps)
            tensor.values[i] -= lr * (self.weight_decay * tensor.values[i] + direction)

    def bounded(self, grad: float, v_hat: float, n_gradients: int) -> float:
        if self.second_moment_clip is None or n_gradients < 10 or v_hat == 0:
            return grad
        bound = math.sqrt(self.second_moment_clip * v_hat)
        return max(-bound, min(bound, grad))

    def look(self, tensor: Tensor, g: list[float]) -> None:
        if self.second_moment_reset is None or tensor.t == 0:
            return
        bounds = [v / self.second_moment_reset for v in tensor.v_hat]
        n_below = sum(grad * grad < bound for grad, bound in zip(g, bounds, strict=True))
        is_stale = 2 * n_below > len(g) and sum(grad * grad for grad in g) < sum(bounds)
        tensor.n_stale = tensor.n_stale + 1 if is_stale else 0
        if tensor.n_stale >= 3:
            tensor.age = min(tensor.age, 5)

    def share(self, tensor: Tensor) -> float:
        b2 = self.betas[1]
        if self.beta2_exponent is not None:
            b2 = min(b2, 1 - tensor.t**-self.beta2_exponent)
            if tensor.age == tensor.t:
                return 1 - b2
        return (1 - b2) / (1 - b2**tensor.age)
