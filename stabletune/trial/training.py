"""What the user's ``build`` hands over: a model, its loss and its data, in plain torch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch

from stabletune.errors import WorkloadError

Precision = Literal["float32", "bfloat16", "float16"]


@dataclasses.dataclass
class Training:
    """One training task.

    Args:
        model: any ``torch.nn.Module``; moved to the trial's device.
        loss_fn: ``(model, batch) -> scalar mean loss``; may itself call autograd.
        batches: any re-iterable of batches, restarted when exhausted. Full batch: ``[(x, y)]``.
        eval_batches: re-iterable whose mean ``loss_fn`` in eval mode is the eval value.
        eval_fn: ``model -> float``, smaller is better; takes the place of ``eval_batches``.
        param_groups: mappings with ``params`` and optionally ``weight_decay`` and ``lr_scale``; lr is the trial's.
        loss_floor: the loss's lower bound; logarithms are of ``loss - loss_floor``.
        precision: ``float32``, or autocast to ``bfloat16`` or ``float16`` (with a GradScaler).
        accumulate: batches per optimizer step, at least 1.
        optimizer_state: an Adam ``state_dict`` to start from; the trial's hyperparameters replace those in it.

    Raises:
        WorkloadError: an argument breaks one of the rules above.
    """

    model: torch.nn.Module
    loss_fn: Callable[[torch.nn.Module, Any], torch.Tensor]
    batches: Iterable[Any]
    eval_batches: Iterable[Any] | None = None
    eval_fn: Callable[[torch.nn.Module], float] | None = None
    param_groups: Sequence[Mapping[str, Any]] | None = None
    loss_floor: float = 0.0
    precision: Precision = "float32"
    accumulate: int = 1
    optimizer_state: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        for problems in (_object_problems, _number_problems, _group_problems, _batch_problems):
            for problem in problems(self):
                raise WorkloadError(f"Training.{problem}")


def _object_problems(training: Training) -> Iterator[str]:
    if not isinstance(training.model, torch.nn.Module):
        got = type(training.model).__name__
        yield f"model: must be a torch.nn.Module, but got {got}. Return Training(model=your_module, ...)."
    if not callable(training.loss_fn):
        yield f"loss_fn: must be callable as loss_fn(model, batch), but got {training.loss_fn!r}. Pass a function."
    if training.precision not in ("float32", "bfloat16", "float16"):
        rule = "must be float32, bfloat16 or float16"
        yield f"precision: {rule}, but got {training.precision!r}. Name one of the three."


def _number_problems(training: Training) -> Iterator[str]:
    floor, accumulate = training.loss_floor, training.accumulate
    if isinstance(accumulate, bool) or not isinstance(accumulate, int) or accumulate < 1:
        rule = "must be a whole number of at least 1"
        yield f"accumulate: {rule}, but got {accumulate!r}. Give the number of batches per optimizer step."
    if isinstance(floor, bool) or not isinstance(floor, (int, float)) or not math.isfinite(floor):
        rule = "must be a finite number"
        yield f"loss_floor: {rule}, but got {floor!r}. Give a bound below the smallest loss the task can reach."


def _group_problems(training: Training) -> Iterator[str]:
    for group in training.param_groups or ():
        if "params" not in group or set(group) - {"params", "weight_decay", "lr_scale"}:
            rule = "each must have params, and may have weight_decay and lr_scale"
            yield f"param_groups: {rule}, but got the keys {sorted(group)}. lr is the trial's; scale it with lr_scale."
        elif group.get("lr_scale", 1.0) < 0.0:
            yield f"param_groups: lr_scale >= 0 must hold, but got {group['lr_scale']!r}. 0 keeps the group fixed."


def _batch_problems(training: Training) -> Iterator[str]:
    for name, batches in (("batches", training.batches), ("eval_batches", training.eval_batches)):
        is_absent = batches is None and name == "eval_batches"
        if not is_absent and (not isinstance(batches, Iterable) or isinstance(batches, Iterator)):
            rule = "must be re-iterable (a list, a DataLoader)"
            remedy = "Wrap one-shot iterators in a list or a class with __iter__."
            yield f"{name}: {rule}, but got {type(batches).__name__}. {remedy}"
