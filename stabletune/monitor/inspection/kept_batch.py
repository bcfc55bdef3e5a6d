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
        values = [_content(cell) for cell in getattr(self.loss_now, "__closure__", None) or ()]
        if isinstance(self.loss_now, types.FunctionType):
            named = set(_names(self.loss_now.__code__))
            values += [value for name, value in self.loss_now.__globals__.items() if name in named]
        found = [tensor for value in values for tensor in _tensors(value)]
        return all(map(_is_finite, found)) if found else None


def keep(step: int, loss: float, closure: Callable[[], Tensor]) -> KeptBatch:
    """Keep ``closure`` as it is at this step, whatever the caller's loop assigns to its variables later."""
    return KeptBatch(step, loss, _with_own_variables(closure))


def _with_own_variables(closure: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Copy a function with the values its variables have now: ``lambda: loss_fn(model, batch)`` keeps its batch.

    Of a module's variables those that the function itself names, so that a loop at the top of a script keeps its
    batches too, and nothing else alive.
    """
    if not isinstance(closure, types.FunctionType):
        return closure
    given = closure.__globals__
    own = {name: given[name] for name in {"__builtins__", "__name__", *_names(closure.__code__)} if name in given}
    cells = [_copied(cell) for cell in closure.__closure__ or ()]
    copy = types.FunctionType(closure.__code__, own, closure.__name__, closure.__defaults__, tuple(cells))
    copy.__kwdefaults__ = closure.__kwdefaults__
    return copy


def _names(code: types.CodeType) -> Iterator[str]:
    """The names of variables and attributes in a function and those defined in it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _copied(cell: types.CellType) -> types.CellType:
    content = _content(cell)
    return cell if content is None else types.CellType(content)


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
