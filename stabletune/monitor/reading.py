"""One measurement: from the optimizer's state and a closure to the numbers of a ``Measurement``."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from stabletune.monitor.shadow_reading import ShadowReader
from stabletune.signals.adam_state import AdamTensor, is_maximizing, read_adam
from stabletune.signals.curvature.hvp import LossGraph
from stabletune.signals.curvature.preconditioner import PreconditionedHessian, is_at_floor
from stabletune.signals.gradient_curvature import alignment, gradient_curvature
from stabletune.signals.gradient_norm import gradient_norm
from stabletune.signals.sharpness_ratio import MaskedSharpnessTracker, Sharpness, SharpnessTracker
from stabletune.signals.undisturbed import undisturbed
from stabletune.signals.update_rms import update_rms
from stabletune.signals.v_hat_staleness import v_hat_staleness

GRAPH_COST = 1.25
PRODUCT_COST = 2.0


class Probe:
    """Reads every signal that needs the loss; follows the top direction between readings."""

    def __init__(
        self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, shadows: ShadowReader | None = None
    ) -> None:
        self._model = model
        self._optimizer = optimizer
        self._shadows = shadows
        self._tracker = SharpnessTracker()
        self._masked_tracker = MaskedSharpnessTracker()

    def read(self, closure: Callable[[], Tensor]) -> tuple[dict[str, Any], float]:
        """Return the fields of a ``Measurement`` and the cost in gradient equivalents."""
        tensors = read_adam(self._optimizer)
        with undisturbed(self._model, [tensor.param for tensor in tensors]):
            if not tensors:
                return {}, 0.0
            sign = -1.0 if is_maximizing(self._optimizer) else 1.0
            graph = LossGraph(
                closure,
                [tensor.param for tensor in tensors],
                sign=sign,
                has_recurrent_layers=any(isinstance(module, torch.nn.RNNBase) for module in self._model.modules()),
            )
            with torch.no_grad():
                return self._read_graph(graph, {id(tensor.param): tensor for tensor in tensors})

    def _read_graph(self, graph: LossGraph, by_param: dict[int, AdamTensor]) -> tuple[dict[str, Any], float]:
        if not graph.params or not math.isfinite(graph.loss):
            return {}, GRAPH_COST
        tensors = [by_param[id(param)] for param in graph.params]
        norm = gradient_norm(graph.gradients)
        if not math.isfinite(norm):
            return {}, GRAPH_COST
        entering = [g + t.l2 * t.param if t.l2 else g for g, t in zip(graph.gradients, tensors, strict=True)]
        operator = PreconditionedHessian(graph, tensors)
        curvature, sharpness = self._read_curvature(operator, is_at_floor(tensors, graph.like))
        fields = {
            "gradient_norm": norm,
            "v_hat_staleness": v_hat_staleness(tensors, entering),
            "update_rms": update_rms(tensors, entering),
            **curvature,
        }
        n_products = operator.n_products
        if self._shadows is not None and sharpness is not None:
            fields["shadow_sharpness_ratios"], n_own = self._shadows.read(graph, tensors, sharpness)
            n_products += n_own
        return fields, GRAPH_COST + PRODUCT_COST * n_products

    def _read_curvature(
        self, operator: PreconditionedHessian, floor: Tensor
    ) -> tuple[dict[str, Any], Sharpness | None]:
        along = gradient_curvature(operator)
        fields: dict[str, Any] = {}
        if along is not None:
            fields["gradient_curvature_ratio"] = finite_or_none(along.ratio)
            fields["gradient_curvature_ratio_paper"] = finite_or_none(along.paper_ratio)
        sharpness = self._tracker.measure(operator, along)
        if sharpness is None:
            return fields, None
        fields |= {
            "sharpness_ratio": sharpness.ratio,
            "sharpness_ratio_masked": self._masked_tracker.measure(operator, floor, sharpness),
            "residual": sharpness.residual,
            "has_converged": sharpness.has_converged,
            "alignment": alignment(operator.scaled_gradient, sharpness.direction),
        }
        return fields, sharpness


def finite_or_none(value: float) -> float | None:
    """Return the value, or None where it is nan or infinite."""
    return value if math.isfinite(value) else None
