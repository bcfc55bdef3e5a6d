"""One measurement: from the optimizer's state and a closure to the numbers of a ``Measurement``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from stabletune.signals.adam_state import AdamTensor, is_maximizing, read_adam
from stabletune.signals.curvature.handwritten import check_second_derivative, displaced
from stabletune.signals.curvature.hvp import LossGraph, full_precision
from stabletune.signals.curvature.preconditioner import PreconditionedHessian, is_at_floor
from stabletune.signals.gradient_curvature import alignment, gradient_curvature
from stabletune.signals.gradient_norm import gradient_norm
from stabletune.signals.sharpness_ratio import MaskedSharpnessTracker, SharpnessTracker
from stabletune.signals.undisturbed import undisturbed
from stabletune.signals.update_rms import update_rms
from stabletune.signals.v_hat_staleness import v_hat_staleness

GRAPH_COST = 1.25
PRODUCT_COST = 2.0


class Probe:
    """Reads every signal that needs the loss; follows the top direction between readings."""

    def __init__(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self._model = model
        self._optimizer = optimizer
        self._tracker = SharpnessTracker()
        self._masked_tracker = MaskedSharpnessTracker()
        self._has_checked_derivatives = False

    def read(self, closure: Callable[[], Tensor]) -> tuple[dict[str, Any], float]:
        """Return the fields of a ``Measurement`` and the cost in gradient equivalents."""
        tensors = read_adam(self._optimizer)
        if not tensors:
            return {}, 0.0
        params = [tensor.param for tensor in tensors]
        with undisturbed(self._model, params):
            graph = self._graph(closure, params)
            with torch.no_grad(), full_precision(graph.like):
                fields, cost = self._read_graph(graph, {id(tensor.param): tensor for tensor in tensors})
        if graph.handwritten and fields and not self._has_checked_derivatives:
            cost += self._check_derivatives(graph, closure)
        return fields, cost

    def _graph(self, closure: Callable[[], Tensor], params: Sequence[Tensor]) -> LossGraph:
        return LossGraph(
            closure,
            params,
            sign=-1.0 if is_maximizing(self._optimizer) else 1.0,
            has_recurrent_layers=any(isinstance(module, torch.nn.RNNBase) for module in self._model.modules()),
        )

    def _check_derivatives(self, graph: LossGraph, closure: Callable[[], Tensor]) -> float:
        """Put the Hessian products to the test, where a custom function could be wrong in silence; return the cost."""

        def gradient_at(direction: Tensor, step: float) -> Tensor:
            # each time from the random state that the graph was built from, so that dropout draws the same mask
            with undisturbed(self._model, graph.params), displaced(graph.params, direction, step):
                return self._graph(closure, graph.params).gradient()

        with torch.no_grad(), full_precision(graph.like):
            check_second_derivative(graph, gradient_at)
        self._has_checked_derivatives = True
        return PRODUCT_COST + 4 * GRAPH_COST

    def _read_graph(self, graph: LossGraph, by_param: dict[int, AdamTensor]) -> tuple[dict[str, Any], float]:
        if not math.isfinite(graph.loss):
            return {}, GRAPH_COST
        tensors = [by_param[id(param)] for param in graph.params]
        norm = gradient_norm(graph.gradients)
        if not math.isfinite(norm):
            return {}, GRAPH_COST
        entering = [g + t.l2 * t.param if t.l2 else g for g, t in zip(graph.gradients, tensors, strict=True)]
        operator = PreconditionedHessian(graph, tensors)
        fields = {
            "gradient_norm": norm,
            "v_hat_staleness": v_hat_staleness(tensors, entering),
            "update_rms": update_rms(tensors, entering),
            **self._read_curvature(operator, is_at_floor(tensors, graph.like)),
        }
        return fields, GRAPH_COST + PRODUCT_COST * operator.n_products

    def _read_curvature(self, operator: PreconditionedHessian, floor: Tensor) -> dict[str, Any]:
        along = gradient_curvature(operator)
        fields: dict[str, Any] = {}
        if along is not None:
            fields["gradient_curvature_ratio"] = finite_or_none(along.ratio)
            fields["gradient_curvature_ratio_paper"] = finite_or_none(along.paper_ratio)
        sharpness = self._tracker.measure(operator, along)
        if sharpness is None:
            return fields
        return fields | {
            "sharpness_ratio": sharpness.ratio,
            "sharpness_ratio_masked": self._masked_tracker.measure(operator, floor, sharpness),
            "residual": sharpness.residual,
            "has_converged": sharpness.has_converged,
            "alignment": alignment(operator.scaled_gradient, sharpness.direction),
        }


def finite_or_none(value: float) -> float | None:
    """Return the value, or None where it is nan or infinite."""
    return value if math.isfinite(value) else None
