"""Derivatives written by hand: where a loss has them, and whether they are right a second time.

In: the loss and its first-order graph. Out: names, or a MeasurementError. autograd differentiates its own operations as
often as one likes, or says that it cannot; a custom ``autograd.Function`` or a hook can also drop out of the second
derivative in silence: a backward that detaches, a kernel that returns constants, a ``backward()`` within the backward.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import Node

from stabletune.errors import MeasurementError

RELATIVE_STEP = 1e-3
LEAST_DISAGREEMENT = 0.1
CERTAINTY = 5.0


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


def check_second_derivative(
    gradient: Tensor, image: Tensor, gradient_at: Callable[[float], Tensor], *, step: float, names: Sequence[str]
) -> None:
    """Raise MeasurementError if the Hessian product is proven not to be the derivative of the gradient.

    D(h) = (g(θ + h g) - g(θ)) / h  against  H g:  wrong if ‖D(h) - H g‖ > 0.1 ‖D(h)‖ and > 5 ‖D(h) - D(2h)‖

    The two steps bound the error of D(h) itself: rounding, kinks and a closure that is random each time make them
    differ, and then nothing is proven.

    Args:
        gradient: g at θ, flat.
        image: H g by double backward.
        gradient_at: h ↦ g(θ + h g).
        step: h.
        names: what to name in the error.

    Cost: two gradients.
    """
    near = (gradient_at(step) - gradient) / step
    doubt = float((near - (gradient_at(2 * step) - gradient) / (2 * step)).norm())
    difference = float((near - image).norm())
    if difference > LEAST_DISAGREEMENT * float(near.norm()) and difference > CERTAINTY * doubt:
        raise MeasurementError(
            "StabilityMonitor: the derivative of the gradient must be what autograd takes it for, but it is off by "
            f"{difference / float(near.norm()):.0%} ({', '.join(names)}). Give a probe that uses torch's own "
            "operations in their place: a backward that detaches or returns constants has no second derivative."
        )


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
