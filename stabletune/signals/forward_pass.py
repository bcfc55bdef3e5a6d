"""What happens inside a forward pass: how large the inputs of its softmaxes are, and what its loss is in float64.

In: a closure that computes the loss. Out: its loss, seen through a mode that watches or widens every operation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

MASKED = -1e4
_SOFTMAX = frozenset(
    {
        "_log_softmax",
        "_softmax",
        "_safe_softmax",
        "logsumexp",
        "binary_cross_entropy_with_logits",
        "log_sigmoid_forward",
    }
)


class ForwardPass(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Watches a forward pass: ``largest_logits`` of each softmax in order, the narrowest format met, and its ``loss``.

    max |x| over the inputs x of a softmax, log-softmax, logsumexp, binary cross-entropy or log-sigmoid, without
    what is masked: entries at or below -10⁴. With few logits above that a loss is robust; where they grow without
    bound one wrong example costs as much as its logit.

    Cost: one reduction per softmax; 10 µs of Python per operation.
    Source: arXiv:2309.14322 for attention and output logits as causes of instability.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.loss = math.nan
        self.largest_logits: list[float] = []
        self.narrowest: torch.dtype | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation, and look at what goes in and comes out."""
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor) and out.is_floating_point():
            if self.narrowest is None or out.dtype.itemsize < self.narrowest.itemsize:
                self.narrowest = out.dtype
        if func._overloadpacket.__name__ in _SOFTMAX and isinstance(args[0], Tensor) and args[0].numel():
            self.largest_logits.append(_largest(args[0].detach()))
        return out


def watch_forward(closure: Callable[[], Tensor]) -> ForwardPass:
    """Run ``closure`` once, without a backward pass, and return what was seen."""
    seen = ForwardPass()
    with torch.inference_mode(False), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), seen:
        loss = closure()
    seen.loss = float(loss.detach())
    return seen


class InFloat64(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Computes in float64 whatever would be computed in less, casts to narrower formats included.

    What is changed in place keeps its own format: it belongs to someone else. Statistics of a normalization stay as
    they were.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation on widened inputs."""
        keywords = {
            key: torch.float64 if isinstance(value, torch.dtype) and value.is_floating_point else value
            for key, value in (kwargs or {}).items()
        }
        if func._overloadpacket.__name__.endswith("_"):
            return func(*args, **keywords)
        return func(*tree_map(_widened, args), **tree_map(_widened, keywords))


def loss_in_float64(closure: Callable[[], Tensor]) -> float | None:
    """Return the loss of ``closure`` computed in float64 from the same parameters; None where the model cannot.

    Cost: one forward pass, two to four times as long.
    """
    try:
        with torch.inference_mode(False), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), InFloat64():  # type: ignore[no-untyped-call]
            return float(closure().detach())
    except Exception:  # no float64 kernel, or a model that checks its formats: nothing is known, which None says
        return None


def _widened(value: Any) -> Any:
    is_narrow = isinstance(value, Tensor) and value.is_floating_point() and value.dtype != torch.float64
    return value.to(torch.float64) if is_narrow else value


def _largest(logits: Tensor) -> float:
    kept = torch.where(logits > MASKED, logits.abs(), 0)
    return float(kept.max())
