"""One measurement: from the optimizer's state and a closure to the numbers of a ``Measurement``."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from stabletune.monitor.schedule import Extras
from stabletune.monitor.shadow_reading import ShadowReader
from stabletune.monitor.work import SOLVER_PRICES, Meter, WorkCounter
from stabletune.records import finite_or_none
from stabletune.signals.curvature.handwritten import check_second_derivative, displaced
from stabletune.signals.curvature.hvp import LossGraph, full_precision
from stabletune.signals.curvature.preconditioner import PreconditionedHessian, is_at_floor
from stabletune.signals.frozen_curvature import Foresight
from stabletune.signals.gradient_curvature import alignment, gradient_curvature
from stabletune.signals.gradient_norm import gradient_norm
from stabletune.signals.optimizer_state.adaptive_tensor import AdaptiveTensor
from stabletune.signals.optimizer_state.reading import is_maximizing, read_tensors
from stabletune.signals.sharpness import RawSharpnessTracker
from stabletune.signals.sharpness_ratio import (
    MaskedSharpnessTracker,
    Sharpness,
    SharpnessTracker,
)
from stabletune.signals.undisturbed import undisturbed
from stabletune.signals.update_rms import update_rms
from stabletune.signals.v_hat_staleness import v_hat_staleness

GRAPH_COST = 1.25
EVERYTHING = Extras(gradient=True, second_vector=True, oscillation=True)
N_COUNTED = 2
BACKWARD_SHARE = 0.6  # of a gradient, 1/2 to 2/3; under a counter a compiled forward would run uncompiled
PRODUCT_COST = 2.0


@dataclasses.dataclass(frozen=True)
class Reading:
    """The fields of a ``Measurement``, the cost in gradients, what S was foreseen to be and what now foresees it.

    ``is_before_first_step``: no parameter has taken a step, so that there is no S.
    """

    fields: dict[str, Any]
    cost: float
    foreseen: float | None = None
    foresight: Foresight | None = None
    is_before_first_step: bool = False


class Probe:
    """Reads every signal that needs the loss; follows the top directions between readings.

    A reading costs 1.25 gradients for the graph and, per Hessian product, what those of the first two readings were
    counted to cost with all that is done with their vectors: two gradients in theory, 1.5-3 in practice. What it takes
    beside the products is counted at the second.

    Args:
        model: whose buffers and modes are kept.
        optimizer: what the loss is seen through.
        is_thorough: see ``SharpnessTracker``.
        shadows: what follows other values of beta2; its bounds come with every S, its exact values on top.
        reads_sharpness: whether the raw sharpness is read too, by products of its own.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        is_thorough: bool = False,
        shadows: ShadowReader | None = None,
        reads_sharpness: bool = False,
    ) -> None:
        self._model = model
        self._optimizer = optimizer
        self.shadows = shadows
        self._tracker = SharpnessTracker(is_thorough=is_thorough)
        self._masked_tracker = MaskedSharpnessTracker(is_thorough=is_thorough)
        self._raw_tracker = RawSharpnessTracker(is_thorough=is_thorough) if reads_sharpness else None
        self._solver_work = 0.0
        self._n_solver_products = 0
        self._n_counted = 0
        self._preparing = Meter()
        self.gradient_work: float | None = None
        self._graph_cost = GRAPH_COST
        self._has_checked_derivatives = False

    @property
    def product_cost(self) -> float:
        """What a Hessian product costs, in gradients, with all that the solver makes of it."""
        if not self.gradient_work or not self._n_solver_products:
            return PRODUCT_COST
        return self._solver_work / self.gradient_work / self._n_solver_products

    @property
    def _reading_cost(self) -> float:
        """What a reading costs beside its products, in gradients: the graph, the weights, the free signals."""
        return self._graph_cost + (self._preparing.nanoseconds_each / self.gradient_work if self.gradient_work else 0.0)

    def read(self, closure: Callable[[], Tensor], extras: Extras = EVERYTHING, *, clip_factor: float = 1.0) -> Reading:
        """Measure now.

        Args:
            closure: recomputes the loss.
            extras: whether to read what else needs products of its own: the curvature along the gradient, the raw
                sharpness (both also where S is sought anew), and S without the ε floor where that has a part in S.
                And whether to follow the second vector.
            clip_factor: what the loop scaled the gradients of the last step by, in place.
        """
        tensors = read_tensors(self._optimizer, clip_factor)
        if not tensors:
            return Reading({}, 0.0, is_before_first_step=True)
        params = [tensor.param for tensor in tensors]
        with undisturbed(self._model, params):
            counter = WorkCounter() if self.gradient_work is None else None
            graph = self._graph(closure, params, during_backward=counter)
            extra_cost = 0.0
            if counter is not None:
                self._count_gradient(closure, params, counter.nanoseconds)
                extra_cost += 1.0
            with torch.no_grad(), full_precision(graph.like):
                by_param = {id(tensor.param): tensor for tensor in tensors}
                reading = self._read_graph(graph, by_param, extras)
        if graph.handwritten and reading.fields and not self._has_checked_derivatives:
            self._check_derivatives(graph, closure)
            extra_cost += self.product_cost + 4 * self._graph_cost
        return dataclasses.replace(reading, cost=reading.cost + extra_cost)

    def _count_gradient(self, closure: Callable[[], Tensor], params: Sequence[Tensor], graph_work: float) -> None:
        """Count, once, a gradient as in training: with the fused kernels that a second derivative must do without."""
        with undisturbed(self._model, params), torch.inference_mode(False), torch.enable_grad():
            loss = closure()
            with WorkCounter() as counter:
                torch.autograd.grad(loss.sum(), params, allow_unused=True)
        self.gradient_work = counter.nanoseconds / BACKWARD_SHARE
        self._graph_cost = (
            GRAPH_COST * max(1.0, graph_work / counter.nanoseconds) if counter.nanoseconds else GRAPH_COST
        )

    def _graph(
        self, closure: Callable[[], Tensor], params: Sequence[Tensor], *, during_backward: WorkCounter | None = None
    ) -> LossGraph:
        return LossGraph(
            closure,
            params,
            during_backward=during_backward,
            sign=-1.0 if is_maximizing(self._optimizer) else 1.0,
            has_recurrent_layers=any(isinstance(module, torch.nn.RNNBase) for module in self._model.modules()),
        )

    def _check_derivatives(self, graph: LossGraph, closure: Callable[[], Tensor]) -> None:
        """Put the Hessian products to the test, once, where a custom function could be wrong in silence."""

        def gradient_at(direction: Tensor, step: float) -> Tensor:
            # each time from the random state that the graph was built from, so that dropout draws the same mask
            with undisturbed(self._model, graph.params), displaced(graph.params, direction, step):
                return self._graph(closure, graph.params).gradient()

        with torch.no_grad(), full_precision(graph.like):
            self._has_checked_derivatives = check_second_derivative(graph, gradient_at)

    def _read_graph(self, graph: LossGraph, by_param: dict[int, AdaptiveTensor], extras: Extras) -> Reading:
        if not math.isfinite(graph.loss):
            return Reading({}, GRAPH_COST)
        tensors = [by_param[id(param)] for param in graph.params]
        norm = gradient_norm(graph.gradients)
        if not math.isfinite(norm):
            return Reading({}, GRAPH_COST)
        with self._preparing():
            operator, floor = PreconditionedHessian(graph, tensors), is_at_floor(tensors, graph.like)
            free = self._read_free(graph, tensors) | {"gradient_norm": norm}
        is_full = extras.gradient or self._tracker.is_restart_due
        with self._counting_solver(operator):
            fields, sharpness = self._read_curvature(operator, floor, extras, is_full=is_full)
        n_products = operator.n_products
        if is_full and self._raw_tracker is not None:
            fields["sharpness"], n_own = self._raw_tracker.measure(graph)
            n_products += n_own
        if sharpness is not None and self.shadows is not None:
            fields["shadow_sharpness_ratios"], n_own = self.shadows.read(graph, tensors, sharpness)
            n_products += n_own
        return Reading(
            fields=free | fields,
            cost=self._reading_cost + self.product_cost * n_products,
            foreseen=None if sharpness is None else sharpness.foreseen,
            foresight=self._foresight(graph.params),
        )

    @contextlib.contextmanager
    def _counting_solver(self, operator: PreconditionedHessian) -> Iterator[None]:
        """Count the first reading, which starts from nothing, and the second, which starts from the first."""
        if self._n_counted == N_COUNTED:
            yield
            return
        with WorkCounter(*SOLVER_PRICES) as counter:
            yield
        self._n_counted += 1
        self._solver_work += counter.nanoseconds
        self._n_solver_products += operator.n_products

    def _read_free(self, graph: LossGraph, tensors: Sequence[AdaptiveTensor]) -> dict[str, Any]:
        entering = [g + t.l2 * t.param if t.l2 else g for g, t in zip(graph.gradients, tensors, strict=True)]
        return {"v_hat_staleness": v_hat_staleness(tensors, entering), "update_rms": update_rms(tensors, entering)}

    def _foresight(self, params: Sequence[Tensor]) -> Foresight | None:
        curvature = self._tracker.curvature
        return None if curvature is None else Foresight(curvature, tuple(params))

    def _read_curvature(
        self, operator: PreconditionedHessian, floor: Tensor, extras: Extras, *, is_full: bool
    ) -> tuple[dict[str, Any], Sharpness | None]:
        along = gradient_curvature(operator) if is_full else None
        fields: dict[str, Any] = {}
        if along is not None:
            fields["gradient_curvature_ratio"] = finite_or_none(along.ratio)
            fields["gradient_curvature_ratio_paper"] = finite_or_none(along.paper_ratio)
        sharpness = self._tracker.measure(operator, along, takes_second=extras.second_vector)
        if sharpness is None:
            return fields, None
        # not at a restart by itself: a second solver costs as much again
        if extras.gradient or self._masked_tracker.is_free(floor, sharpness):
            fields["sharpness_ratio_masked"] = self._masked_tracker.measure(operator, floor, sharpness)
        fields |= {
            "sharpness_ratio": sharpness.ratio,
            "residual": sharpness.residual,
            "has_converged": sharpness.has_converged,
            "alignment": alignment(operator.scaled_gradient, sharpness.direction),
        }
        return fields, sharpness
