"""Measuring changes nothing: what a measurement may touch is put back, bit for bit."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.parameter import is_lazy


@contextlib.contextmanager
def undisturbed(model: torch.nn.Module, params: Sequence[Tensor]) -> Iterator[None]:
    """Restore on leaving: buffers, train/eval modes, ``p.grad``, and the random states of torch, numpy and random.

    Not those of a ``torch.Generator`` of the user's own. Parameters and optimizer state are only read within.
    ``p.grad`` is set aside, so that a closure which calls ``backward`` after all leaves no trace.

    Args:
        model: whose buffers and modes are kept, those of every submodule included.
        params: whose gradients are set aside; those of ``model`` as well.

    Cost: one copy of the buffers.
    """
    everything = {id(p): p for p in [*model.parameters(), *params]}.values()
    gradients = [(p, p.grad) for p in everything]
    modes = [(module, module.training) for module in model.modules()]
    registered = [(module, dict(module._buffers)) for module in model.modules()]
    held = [b for _, named in registered for b in named.values() if b is not None and not is_lazy(b)]
    buffers = [(part, part.detach().clone()) for part in map(_written_to, held)]
    with _random_states(), torch.random.fork_rng(devices=_cuda_devices()):
        for p, _ in gradients:
            p.grad = None
        try:
            yield
        finally:
            for p, gradient in gradients:
                p.grad = gradient
            for module, mode in modes:
                module.training = mode
            for module, named in registered:
                module._buffers.clear()
                module._buffers.update(named)
            for buffer, value in buffers:
                # through .data, so that the version counter does not move and no retained graph is spoiled
                buffer.data.copy_(value)


def _written_to(buffer: Tensor) -> Tensor:
    """The part of a buffer in which each number lies once: of one made by ``expand`` the part that was expanded."""
    if buffer.layout != torch.strided:
        return buffer
    for dimension, stride in enumerate(buffer.stride()):
        if stride == 0 and buffer.shape[dimension] > 1:
            buffer = buffer.narrow(dimension, 0, 1)
    return buffer


@contextlib.contextmanager
def _random_states() -> Iterator[None]:
    python, numpy = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def _cuda_devices() -> list[int]:
    # a torch without a CUDA context has no CUDA random state to keep, and asking for one would create it
    is_initialized: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return list(range(torch.cuda.device_count())) if is_initialized else []
