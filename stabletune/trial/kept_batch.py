"""A step's batch, kept so that its loss can be computed again under later parameters."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class KeptBatch:
    """The loss of one step's batch as a function of the parameters of the moment, and what it was at its step."""

    step: int
    loss_then: float
    loss_now: Callable[[], Tensor]

    def has_finite_inputs(self) -> bool | None:
        """Whether every number is finite in the tensors that the closure holds; None where none are found in it."""
        cells = getattr(self.loss_now, "__closure__", None) or ()
        found = [tensor for cell in cells for tensor in _tensors(_content(cell))]
        return all(map(_is_finite, found)) if found else None


def keep(step: int, loss: float, closure: Callable[[], Tensor]) -> KeptBatch:
    """Keep ``closure`` as it is at this step, whatever the caller's loop assigns to its variables later."""
    return KeptBatch(step, loss, _with_own_cells(closure))


def _with_own_cells(closure: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Copy a function with the values its variables have now: ``lambda: loss_fn(model, batch)`` keeps its batch."""
    if not isinstance(closure, types.FunctionType) or not closure.__closure__:
        return closure
    cells = [cell if (content := _content(cell)) is None else types.CellType(content) for cell in closure.__closure__]
    copy = types.FunctionType(
        closure.__code__, closure.__globals__, closure.__name__, closure.__defaults__, tuple(cells)
    )
    copy.__kwdefaults__ = closure.__kwdefaults__
    return copy


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a variable without a value yet
        return None


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for entry in value.values():
            yield from _tensors(entry)
    elif isinstance(value, (list, tuple)):
        for entry in value:
            yield from _tensors(entry)


def _is_finite(tensor: Tensor) -> bool:
    if tensor.layout == torch.sparse_coo:
        tensor = tensor._values()
    elif tensor.layout != torch.strided:
        tensor = tensor.values()
    return bool(torch.isfinite(tensor).all())
