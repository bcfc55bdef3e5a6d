"""What a measurement under the run's own beta2 tells of others: a bound for each, and its exact value where asked.

In: the graph and the Ritz basis of the measurement. Out: one ``ShadowSharpness`` for each beta2', and what it took.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from stabletune.monitor.work import Meter
from stabletune.records import ShadowSharpness
from stabletune.signals.curvature.hvp import LossGraph
from stabletune.signals.curvature.preconditioner import PreconditionedHessian
from stabletune.signals.optimizer_state.adaptive_tensor import AdaptiveTensor
from stabletune.signals.shadows.second_moments import ShadowSecondMoments
from stabletune.signals.shadows.sharpness import bound_sharpness, weight_stretch
from stabletune.signals.sharpness_ratio import Sharpness, SharpnessTracker


class ShadowReader:
    """Keeps the second moments of other beta2', and a tracker for each where exact values are asked for.

    Args:
        optimizer: whose steps are followed from now on.
        beta2: the other values.
        is_exact: spend Hessian products of their own on each of them.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, beta2: Sequence[float], *, is_exact: bool) -> None:
        self._meter = Meter()
        self._moments = ShadowSecondMoments(optimizer, beta2, self._meter)
        self._trackers = (
            {value: SharpnessTracker(is_thorough=True) for value in self._moments.beta2} if is_exact else {}
        )

    @property
    def nanoseconds(self) -> float:
        """What following the optimizer's steps has taken so far, as a ``WorkCounter`` counts."""
        return self._meter.nanoseconds

    def read(
        self, graph: LossGraph, tensors: Sequence[AdaptiveTensor], measured: Sharpness
    ) -> tuple[tuple[ShadowSharpness, ...], int]:
        """Return what is known of each beta2', and how many Hessian products that took: none unless exact."""
        found, n_products = [], 0
        for beta2 in self._moments.beta2:
            shadows = self._moments.view(beta2, tensors)
            bound = bound_sharpness(measured.basis, weight_stretch(tensors, shadows, graph.like))
            fields = {} if bound is None else dataclasses.asdict(bound)
            if beta2 in self._trackers:
                operator = PreconditionedHessian(graph, shadows)
                sharpness = self._trackers[beta2].measure(operator, None)
                n_products += operator.n_products
                if sharpness is not None and sharpness.has_converged:
                    fields["exact"] = sharpness.ratio
            found.append(ShadowSharpness(beta2=beta2, **fields))
        return tuple(found), n_products
