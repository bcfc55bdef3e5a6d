"""Exact products with the Hessian of a loss, by double backward on one graph.

In: a closure that returns the loss, and the parameters. Out: the loss, its gradient as one flat vector, and H v for
flat v, all from a single forward pass: one dropout mask, one batch.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from stabletune.errors import MeasurementError
from stabletune.signals.curvature.handwritten import (
    check_not_once,
    check_reached,
    handwritten_in,
    holds_float16,
    nodes_of,
)


def flatten(tensors: Sequence[Tensor], like: Tensor) -> Tensor:
    """Concatenate tensors of any shape into one vector, on the device and in the precision of ``like``."""
    return torch.cat([tensor.detach().reshape(-1).to(like) for tensor in tensors])


class LossGraph:
    """The loss at the current parameters, its gradient, and products with its Hessian.

    H v = ∂(gᵀv)/∂θ, reverse over reverse: nested forward mode is silently wrong through LayerNorm and BatchNorm.

    Args:
        closure: returns the scalar loss; may itself call autograd.
        params: leaf tensors; those the loss does not use are dropped from ``params`` here.
        sign: -1 for an optimizer that maximizes.
        has_recurrent_layers: whether the model holds LSTM, GRU or RNN modules.
        during_backward: entered around the backward pass, half to two thirds of a gradient.

    Raises:
        MeasurementError: the loss is not a differentiable scalar, or some operation cannot be differentiated twice.

    Where the graph holds float16, gradients and vectors are scaled by powers of two: unscaled, those below 6e-8 vanish
    and S was off by 18 %.

    Cost: about one gradient to build, two with float16, and memory for the graph until the object goes; 1.3-2.5
    gradients per product.
    """

    def __init__(
        self,
        closure: Callable[[], Tensor],
        params: Sequence[Tensor],
        *,
        sign: float = 1.0,
        has_recurrent_layers: bool = False,
        during_backward: contextlib.AbstractContextManager[object] | None = None,
    ) -> None:
        with torch.inference_mode(False), torch.enable_grad():
            with twice_differentiable_kernels(has_recurrent_layers=has_recurrent_layers), _no_cast_cache():
                loss = closure()
            _check_loss(loss)
            self.loss = float(loss.detach())
            nodes = nodes_of(loss)
            self.handwritten = handwritten_in(nodes, params)
            with full_precision(loss):
                self._holds_float16 = holds_float16(nodes)
                self._scale = _float16_scale(loss, params) if self._holds_float16 else 1.0
                with during_backward or contextlib.nullcontext():
                    found = _differentiate([sign * self._scale * loss.sum()], params, None, create_graph=True)
            unreached = [param for param, gradient in zip(params, found, strict=True) if gradient is None]
            check_reached(loss, nodes, unreached, self.handwritten)
        _check_gradients(found)
        check_not_once(found, self.handwritten)
        self.params = [param for param, gradient in zip(params, found, strict=True) if gradient is not None]
        self._scaled_gradients = [gradient for gradient in found if gradient is not None]
        self.gradients = [self._unscaled(gradient) for gradient in self._scaled_gradients]

    @property
    def like(self) -> Tensor:
        """An empty tensor with the precision and device of the flat vectors: at least float32."""
        dtype = torch.float64 if any(p.dtype == torch.float64 for p in self.params) else torch.float32
        return torch.empty(0, dtype=dtype, device=self.params[0].device)

    def gradient(self) -> Tensor:
        """Return the gradient as one flat vector."""
        return flatten(self.gradients, self.like)

    def product(self, vector: Tensor) -> Tensor:
        """Return H v for a flat vector v."""
        size = float(vector.abs().max()) if self._holds_float16 else 1.0
        if size == 0.0:
            return torch.zeros_like(vector)
        pieces = torch.split(vector / size if self._holds_float16 else vector, [p.numel() for p in self.params])
        outputs, directions = [], []
        for gradient, piece in zip(self._scaled_gradients, pieces, strict=True):
            if gradient.requires_grad:
                outputs.append(gradient)
                directions.append(piece.reshape(gradient.shape).to(gradient))
        if not outputs:
            return torch.zeros_like(vector)
        found = _differentiate(outputs, self.params, directions, create_graph=False)
        image = flatten(
            [torch.zeros_like(p) if h is None else h for h, p in zip(found, self.params, strict=True)], self.like
        )
        return image.mul_(size / self._scale) if self._holds_float16 else image

    def _unscaled(self, gradient: Tensor) -> Tensor:
        return gradient.detach().to(self.like) / self._scale if self._holds_float16 else gradient


@contextlib.contextmanager
def twice_differentiable_kernels(*, has_recurrent_layers: bool = False) -> Iterator[None]:
    """Choose kernels that can be differentiated twice; must surround the forward pass, the backward is too late.

    The fused kernels of ``scaled_dot_product_attention`` and of cuDNN's recurrent layers have no second derivative.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        if has_recurrent_layers:
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        yield


@contextlib.contextmanager
def full_precision(like: Tensor) -> Iterator[None]:
    """Switch off an autocast that surrounds the caller's loop; what the closure casts by itself stays as it is."""
    device = like.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        with torch.autocast(device, enabled=False):
            yield
    else:
        yield


@contextlib.contextmanager
def _no_cast_cache() -> Iterator[None]:
    """Cast anew: within an autocast that is still open, the cache holds the weights as they were before the step."""
    is_enabled = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(is_enabled)


def _float16_scale(loss: Tensor, params: Sequence[Tensor]) -> float:
    """A power of two that brings the largest gradient near 1, since those below 6e-8 are zero in float16."""
    for exponent in (24, 16, 8, 0):
        found = _differentiate([2.0**exponent * loss.sum()], params, None, create_graph=False)
        largest = max((float(g.abs().max()) for g in found if g is not None and g.numel()), default=0.0)
        if math.isfinite(largest):
            return 2.0 ** (exponent - math.frexp(largest)[1]) if largest > 0 else 2.0**exponent
    return 1.0


def _check_loss(loss: object) -> None:
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        got = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise MeasurementError(
            f"StabilityMonitor: the probe or closure must return the loss as a scalar tensor, but got {got}. "
            "Return the tensor itself, without .item() and before backward()."
        )
    if not loss.requires_grad:
        raise MeasurementError(
            "StabilityMonitor: the loss of the probe or closure must depend on the parameters through autograd, "
            "but got one without a gradient. Compute it anew, without no_grad or detach."
        )


def _check_gradients(found: Sequence[Tensor | None]) -> None:
    if all(gradient is None for gradient in found):
        raise MeasurementError(
            "StabilityMonitor: the loss of the probe or closure must depend on the optimizer's parameters, but it has "
            "a gradient for none of them. Return the loss of the model that this optimizer trains."
        )


def _differentiate(
    outputs: Sequence[Tensor], params: Sequence[Tensor], directions: Sequence[Tensor] | None, *, create_graph: bool
) -> tuple[Tensor | None, ...]:
    try:
        found = torch.autograd.grad(
            outputs, params, directions, create_graph=create_graph, retain_graph=True, allow_unused=True
        )
    except torch.OutOfMemoryError as error:
        raise MeasurementError(
            "StabilityMonitor: the graph of the second derivative must fit into the memory, which holds about three "
            f"times a gradient's, but {str(error).splitlines()[0]} Give a probe on a smaller batch."
        ) from error
    except Exception as error:
        if "second time" in str(error):
            raise MeasurementError(
                "StabilityMonitor: the probe or closure must compute the loss anew, but returned one whose graph "
                "backward() has freed. Give lambda: loss_fn(model, batch) in place of lambda: loss."
            ) from error
        reason = f"{(str(error).splitlines() or [type(error).__name__])[0].rstrip('.')}."
        if "compile" in reason:  # torch's own advice there, to change a setting, only leads to the next error
            reason = "torch.compile has no double backward."
        raise MeasurementError(
            f"StabilityMonitor: the loss must be differentiable twice, but autograd said: {reason} Give a probe that "
            "calls the uncompiled model, uses checkpoint(use_reentrant=False), and does without operations that have "
            "no second derivative: a custom autograd.Function, nn.EmbeddingBag, ctc_loss."
        ) from error
    return tuple(piece if piece is None or not piece.is_sparse else piece.to_dense() for piece in found)
