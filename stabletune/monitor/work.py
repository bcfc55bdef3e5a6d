"""What measuring costs, counted instead of timed, so that the same seed gives the same readings.

In: any torch code run inside. Out: an estimate of its time on one core, or on an accelerator, of which only ratios are
used.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

NANOSECONDS_PER_CALL = 12_000.0
NANOSECONDS_PER_BARE_CALL = 4_000.0
NANOSECONDS_PER_FLOP = 0.009
NANOSECONDS_PER_BYTE = 0.025
NANOSECONDS_PER_BARE_BYTE = 0.08
ACCELERATED_PER_FLOP, ACCELERATED_PER_BYTE = 0.00001, 0.0005
ACCELERATED_PER_TENSOR = 60_000.0  # of Python, for what goes through the parameters one by one
SOLVER_PRICES = (6_000.0, 0.04)  # per call and per byte, between the two: products and what the solver makes of them


class WorkCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up calls, floating-point operations of products and convolutions, and bytes moved.

    12 µs a call that autograd and modules surround, 4 µs a bare one, 110 GFLOP/s, 40 GB/s while data stay in the cache
    between one layer and the next, 12 GB/s where whole parameter vectors pass. ``make bench-signals`` holds the sums
    against the clock, as booked against added time. Off the CPU the calls cost the same, since the CPU makes them, and
    what they do 100 TFLOP/s and 2 TB/s.
    """

    def __init__(self, per_call: float = NANOSECONDS_PER_CALL, per_byte: float = NANOSECONDS_PER_BYTE) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.nanoseconds = 0.0
        self._per_call = per_call
        self._per_byte = per_byte

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and count it; views are free."""
        keywords = kwargs or {}
        out = func(*args, **keywords)
        if func.is_view:
            return out
        tensors = [leaf for leaf in tree_leaves((args, keywords, out)) if isinstance(leaf, torch.Tensor)]
        n_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        count = flop_registry.get(func._overloadpacket)
        flops = count(*args, **keywords, out_val=out) if count is not None else 0
        if any(tensor.device.type != "cpu" for tensor in tensors):
            self.nanoseconds += self._per_call + ACCELERATED_PER_FLOP * flops + ACCELERATED_PER_BYTE * n_bytes
        else:
            self.nanoseconds += self._per_call + NANOSECONDS_PER_FLOP * flops + self._per_byte * n_bytes
        return out


def python_work(tensors: Sequence[torch.Tensor]) -> float:
    """Nanoseconds of Python to go through tensors one by one, beside what accelerated ones take; 0 of those on the CPU.

    There it is a small part of an action, and the prices of calls have it.
    """
    return ACCELERATED_PER_TENSOR * sum(tensor.device.type != "cpu" for tensor in tensors)


Result = TypeVar("Result")


class CountedOnce(Generic[Result]):
    """Something light done again and again; its cost in gradients is counted once a gradient's work is known.

    Counted is the first time that comes to something: an empty result may have ended early.

    Args:
        action: what is done.
        assumed: its cost until then.
        uncounted: nanoseconds that it takes beside.
    """

    def __init__(self, action: Callable[[], Result], assumed: float, uncounted: float = 0.0) -> None:
        self._action = action
        self._uncounted = uncounted
        self._is_counted = False
        self.cost = assumed

    def __call__(self, gradient_work: float | None) -> Result:
        """Do it; ``gradient_work`` in nanoseconds of a ``WorkCounter``, None if not known yet."""
        if self._is_counted or not gradient_work:
            return self._action()
        with WorkCounter(NANOSECONDS_PER_BARE_CALL, NANOSECONDS_PER_BARE_BYTE) as counter:
            result = self._action()
        if result:
            self.cost = (counter.nanoseconds + self._uncounted) / gradient_work
            self._is_counted = True
        return result


class Meter:
    """Adds up the work of something light that others do again and again; entered round it, it counts it once.

    The first time is passed over, since that may also prepare; so is a time at which nothing was done.
    """

    def __init__(self) -> None:
        self._counter = WorkCounter(NANOSECONDS_PER_BARE_CALL, NANOSECONDS_PER_BARE_BYTE)
        self._n_times = 0

    def __call__(self) -> contextlib.AbstractContextManager[WorkCounter | None]:
        """Enter this round it, each time."""
        self._n_times += 1
        is_wanted = self._n_times > 1 and self._counter.nanoseconds == 0
        return self._counter if is_wanted else contextlib.nullcontext()

    @property
    def nanoseconds(self) -> float:
        """The work of all times, once it has been counted; 0 before."""
        return self._n_times * self.nanoseconds_each

    @property
    def nanoseconds_each(self) -> float:
        """The work of one time, once it has been counted; 0 before."""
        return self._counter.nanoseconds
