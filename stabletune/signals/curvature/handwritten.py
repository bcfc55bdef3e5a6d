"""Derivatives written by hand: where a loss has them, and whether they are right a second time.

In: the loss and its first-order graph. Out: names, or a MeasurementError. autograd differentiates its own operations as
often as one likes, or says that it cannot; a custom ``autograd.Function`` or a hook can also drop out of the second
derivative in silence: a backward that detaches, a kernel that returns constants, a ``backward()`` within the backward.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import Node

from stabletune.errors import MeasurementError

RELATIVE_STEPS = (1e-3, 1e-2)
LEAST_DISAGREEMENT = 0.01
CERTAINTY = 5.0
REMEDY = (
    "Give a probe that uses torch's own operations in their place: a backward that detaches or returns constants has "
    "no second derivative."
)


class DifferentiatedLoss(Protocol):
    """What is put to the test."""

    params: list[Tensor]
    handwritten: tuple[str, ...]

    def gradient(self) -> Tensor:
        """Return the gradient as one flat vector."""

    def product(self, vector: Tensor) -> Tensor:
        """Return H v."""


def nodes_of(loss: Tensor) -> list[Node]:
    """Return every operation in the graph of the loss, each once."""
    pending: list[Node | None] = [loss.grad_fn]
    found: dict[Node, None] = {}
    while pending:
        node = pending.pop()
        if node is not None and node not in found:
            found[node] = None
            pending.extend(function for function, _ in node.next_functions)
    return list(found)


def holds_float16(nodes: Sequence[Node]) -> bool:
    """Whether an operation's result, and so its gradient, is held in float16."""
    return any(
        getattr(output, "dtype", None) == torch.float16
        for node in nodes
        for output in getattr(node, "_input_metadata", ())
    )


def handwritten_in(nodes: Sequence[Node], params: Sequence[Tensor]) -> tuple[str, ...]:
    """Name the custom functions of a graph, and the hooks on parameters."""
    names = {node.name().removesuffix("Backward") for node in nodes if isinstance(node, BackwardCFunction)}
    names |= {"a custom C++ function" for node in nodes if "CppNode" in node.name()}
    if any(param._backward_hooks for param in params):
        names.add("a hook on a parameter")
    return tuple(sorted(names))


def check_reached(loss: Tensor, nodes: Sequence[Node], unreached: Sequence[Tensor], names: Sequence[str]) -> None:
    """Raise MeasurementError if ``loss.backward()`` reaches parameters that ``autograd.grad`` has passed by.

    ``checkpoint(use_reentrant=True)`` and its like run a ``backward`` of their own within the backward. autograd.grad
    sees no way through them to the parameters inside, and leaves those out without a word.

    Cost: one backward pass where there are such parameters and custom functions, else none.
    """
    if not unreached or not names:
        return
    leaves = [leaf for node in nodes if isinstance(leaf := getattr(node, "variable", None), Tensor)]
    kept = [(leaf, leaf.grad) for leaf in {id(leaf): leaf for leaf in [*leaves, *unreached]}.values()]
    try:
        for leaf, _ in kept:
            leaf.grad = None
        loss.backward(retain_graph=True)  # type: ignore[no-untyped-call]
        n_passed_by = sum(param.grad is not None for param in unreached)
    finally:
        for leaf, gradient in kept:
            leaf.grad = gradient
    if n_passed_by:
        raise MeasurementError(
            "StabilityMonitor: the loss must be differentiable twice, but a backward pass within the backward pass "
            f"hides {n_passed_by} parameters ({', '.join(names)}). Use checkpoint(use_reentrant=False), or give a "
            "probe that calls the model without it."
        )


def check_not_once(gradients: Sequence[Tensor | None], names: Sequence[str]) -> None:
    """Raise MeasurementError if a gradient comes out of a function marked with ``once_differentiable``.

    The node that would raise hangs on no parameter, so that autograd.grad passes it by in silence.
    """
    if names and any("autograd::Error" in node.name() for g in gradients if g is not None for node in nodes_of(g)):
        raise MeasurementError(
            "StabilityMonitor: the loss must be differentiable twice, but got a function marked with "
            f"once_differentiable ({', '.join(names)}). {REMEDY}"
        )


def check_second_derivative(graph: DifferentiatedLoss, gradient_at: Callable[[Tensor, float], Tensor]) -> bool:
    """Raise MeasurementError if the Hessian product is proven not to be the derivative of the gradient.

    D(h) = (g(θ + h d) - g(θ)) / h  against  H d:  wrong if ‖D(h) - H d‖ > 0.01 ‖D(h)‖ and > 5 ‖D(h) - D(2h)‖

    D(2h) bounds the error of D(h) itself: rounding, kinks and a closure that is random each time make the two differ,
    and then nothing is proven. On right products ‖D(h) - H d‖ was 0.8-1.7 times ‖D(h) - D(2h)‖ (tanh, ReLU,
    straight-through rounding, autocast); on wrong ones 13-190 times in float32. d is half gradient, half random, so
    that layers with small gradients count too, on coordinates that have one: a hook may mask. ‖h d‖ = 0.001 ‖θ‖, where
    products that are a little off show, and 0.01 ‖θ‖, for gradients rounded to 8 bits.

    Args:
        graph: the loss at θ.
        gradient_at: (d, h) ↦ g(θ + h d), flat.

    Returns:
        Whether they were compared: not where the gradient or θ vanishes.

    Cost: four gradients and one product.
    """
    gradient = graph.gradient()
    noise = torch.randn(gradient.shape, generator=torch.Generator().manual_seed(0)).to(gradient) * (gradient != 0)
    direction = gradient / gradient.norm() + noise / noise.norm()
    size = math.sqrt(sum(float(param.detach().double().square().sum()) for param in graph.params))
    length = float(direction.norm())
    if not (0 < size < math.inf and 0 < length < math.inf):
        return False
    image = graph.product(direction)
    for relative in RELATIVE_STEPS:
        step = relative * size / length
        near = (gradient_at(direction, step) - gradient) / step
        doubt = float((near - (gradient_at(direction, 2 * step) - gradient) / (2 * step)).norm())
        difference = float((near - image).norm())
        if difference > LEAST_DISAGREEMENT * float(near.norm()) and difference > CERTAINTY * doubt:
            raise MeasurementError(
                "StabilityMonitor: the derivative of the gradient must be what autograd takes it for, but it is off by "
                f"{difference / float(near.norm()):.0%} ({', '.join(graph.handwritten)}). {REMEDY}"
            )
    return True


@contextlib.contextmanager
def displaced(params: Sequence[Tensor], direction: Tensor, step: float) -> Iterator[None]:
    """Hold the parameters at θ + h d, and put θ back bit for bit."""
    kept = [param.detach().clone() for param in params]
    pieces = torch.split(direction, [param.numel() for param in params])
    try:
        for param, piece in zip(params, pieces, strict=True):
            # through .data, so that the version counter does not move and no retained graph is spoiled
            param.data.add_(piece.reshape(param.shape).to(param), alpha=step)
        yield
    finally:
        for param, value in zip(params, kept, strict=True):
            param.data.copy_(value)
