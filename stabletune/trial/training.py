"""What the user's ``build`` hands over: a model, its loss and its data, in plain torch."""

from __future__ import annotations

import dataclasses
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
        if not isinstance(self.model, torch.nn.Module):
            raise WorkloadError(
                f"Training.model: must be a torch.nn.Module, but got {type(self.model).__name__}. "
                "Return Training(model=your_module, ...)."
            )
        if not callable(self.loss_fn):
            raise WorkloadError(
                f"Training.loss_fn: must be callable as loss_fn(model, batch), but got {self.loss_fn!r}. "
                "Pass a function."
            )
        if self.precision not in ("float32", "bfloat16", "float16"):
            raise WorkloadError(
                "Training.precision: must be float32, bfloat16 or float16, "
                f"but got {self.precision!r}. Name one of the three."
            )
        if not isinstance(self.accumulate, int) or self.accumulate < 1:
            raise WorkloadError(
                f"Training.accumulate: must be a whole number of at least 1, but got {self.accumulate!r}. "
                "Give the number of batches per optimizer step."
            )
        for name, batches in (("batches", self.batches), ("eval_batches", self.eval_batches)):
            if batches is None and name == "eval_batches":
                continue
            if not isinstance(batches, Iterable) or isinstance(batches, Iterator):
                raise WorkloadError(
                    f"Training.{name}: must be re-iterable (a list, a DataLoader), "
                    f"but got {type(batches).__name__}. Wrap one-shot iterators in a list or a class with __iter__."
                )
