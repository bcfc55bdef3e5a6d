"""Exact products with the Hessian of a loss, by double backward on one graph.

In: a closure that returns the loss, and the parameters. Out: the loss, its gradient as one flat vector, and H v for
flat v, all from a single forward pass: one dropout mask, one batch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from stabletune.errors import MeasurementError


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

    Raises:
        MeasurementError: the loss is not a differentiable scalar, or some operation cannot be differentiated twice.

    Cost: about 1.5 gradients to build, and memory for the graph until the object goes; 2 gradients per product.
    """

    def __init__(
        self,
        closure: Callable[[], Tensor],
        params: Sequence[Tensor],
        *,
        sign: float = 1.0,
        has_recurrent_layers: bool = False,
    ) -> None:
        with torch.inference_mode(False), torch.enable_grad():
            with twice_differentiable_kernels(has_recurrent_layers=has_recurrent_layers):
                loss = closure()
            _check_loss(loss)
            self.loss = float(loss.detach())
            self.gradients: list[Tensor] = []
            self.params: list[Tensor] = []
            found = _differentiate([sign * loss.sum()], params, None, create_graph=True)
        for param, gradient in zip(params, found, strict=True):
            if gradient is not None:
                self.params.append(param)
                self.gradients.append(gradient)

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
        pieces = torch.split(vector, [p.numel() for p in self.params])
        outputs, directions = [], []
        for gradient, piece in zip(self.gradients, pieces, strict=True):
            if gradient.requires_grad:
                outputs.append(gradient)
                directions.append(piece.reshape(gradient.shape).to(gradient))
        if not outputs:
            return torch.zeros_like(vector)
        found = _differentiate(outputs, self.params, directions, create_graph=False)
        return flatten(
            [torch.zeros_like(p) if h is None else h for h, p in zip(found, self.params, strict=True)], self.like
        )


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


def _differentiate(
    outputs: Sequence[Tensor], params: Sequence[Tensor], directions: Sequence[Tensor] | None, *, create_graph: bool
) -> tuple[Tensor | None, ...]:
    try:
        found = torch.autograd.grad(
            outputs, params, directions, create_graph=create_graph, retain_graph=True, allow_unused=True
        )
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise MeasurementError(
            "StabilityMonitor: the loss must be differentiable twice, but autograd said: "
            f"{str(error).splitlines()[0]} Give a probe that calls the uncompiled model (torch.compile has no double "
            "backward) and uses checkpoint(use_reentrant=False)."
        ) from error
    return tuple(piece if piece is None or not piece.is_sparse else piece.to_dense() for piece in found)
