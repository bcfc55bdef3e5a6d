"""For Hugging Face's ``Trainer``: ``Trainer(..., callbacks=[StabilityCallback()])``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from transformers import TrainerCallback

from stabletune.monitor.integrations.watch import Watch

_log = logging.getLogger("stabletune")


class _MicroBatch(NamedTuple):
    """What the model was called with, the loss it gave, and whether a gradient came back to that loss."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    loss: torch.Tensor
    was_trained_on: list[bool]


class StabilityCallback(TrainerCallback):
    """Watches a ``Trainer``'s optimizer; takes what ``Watch`` takes, and ``callback.watch.readings`` are its readings.

    The inputs of each micro-batch are kept until its optimizer step, so that the loss can be computed again. The loss
    is the model's own, ``outputs.loss``: a Trainer that trains another (``label_smoothing_factor``, or a
    ``compute_loss`` of its own) cannot be measured, which is logged once; what one adds to the model's own goes unseen.
    With several processes the first one measures, on its own micro-batches and the unwrapped model, so that nobody
    waits for anybody; a guard would act in one process only, and is refused there. Where the model takes
    ``num_items_in_batch``, Trainer multiplies the loss by the number of processes afterwards: loss and S are too small
    by that factor there.
    """

    def __init__(self, **options: Any) -> None:
        self.watch = Watch(**options)
        self._kept: list[_MicroBatch] = []
        self._hook: Any = None
        self._is_measuring = False
        self._has_said_why_not = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """Attach to the model and its optimizer, and detach from those of a training that was cut off."""
        if args.world_size > 1:
            self.watch.refuse_to_act_alone()
        if not state.is_world_process_zero:
            return
        self._detach()
        optimizer = parts["optimizer"]
        self.begin(parts["model"], getattr(optimizer, "optimizer", optimizer))
        self._hook = parts["model"].register_forward_hook(_Forward(self), with_kwargs=True)

    def begin(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Make ready before the first step."""
        self.watch.begin(model, optimizer)

    def take(self, losses: Sequence[torch.Tensor], closure: Callable[[], torch.Tensor]) -> bool:
        """Take a step, with the shares of the loss and what computes it again; True ends the training."""
        self.watch.step(losses, closure)
        return False

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """Read after the optimizer's step, while the gradients are still there."""
        if self._hook is None:
            return
        model, kept = parts["model"], [batch for batch in self._kept if batch.was_trained_on]
        is_another_loss = len(kept) < len(self._kept) or not kept
        self._kept = []
        if is_another_loss:
            if not self._has_said_why_not:
                self._has_said_why_not = True
                _log.warning(
                    "stabletune: what is trained is not the loss that the model's outputs have: "
                    "this Trainer is not measured"
                )
            return
        # with num_items_in_batch the losses of the micro-batches are shares already; else the Trainer takes their mean
        share = 1.0 if "num_items_in_batch" in kept[0].kwargs else 1.0 / len(kept)

        def closure() -> torch.Tensor:
            losses = [_loss_of(model(*batch.args, **batch.kwargs)) for batch in kept]
            return torch.stack([loss * share for loss in losses if loss is not None]).sum()

        self._is_measuring = True
        try:
            control.should_training_stop |= self.take([batch.loss * share for batch in kept], closure)
        finally:
            self._is_measuring = False

    def on_train_end(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """Detach."""
        self._detach()
        self.watch.end()

    def keep(self, model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: Any) -> None:
        """Keep a micro-batch that is trained on."""
        loss = _loss_of(outputs)
        if loss is None or not loss.requires_grad or not model.training or self._is_measuring:
            return
        batch = _MicroBatch(args, kwargs, loss.detach(), [])
        loss.register_hook(lambda gradient: batch.was_trained_on.append(True))  # type: ignore[no-untyped-call]
        self._kept.append(batch)

    def _detach(self) -> None:
        if self._hook is not None:
            self._hook.remove()
        self._hook, self._kept = None, []


class _Forward:
    """The model's forward hook; a copy of the model, or the model in a file, has one that does nothing."""

    def __init__(self, callback: StabilityCallback) -> None:
        self._callback = callback

    def __call__(self, model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: Any) -> None:
        self._callback.keep(model, args, kwargs, outputs)

    def __reduce__(self) -> tuple[Any, ...]:
        return _NoHook, ()


class _NoHook:
    def __call__(self, model: torch.nn.Module, args: Any, kwargs: Any, outputs: Any) -> None:
        return


def _loss_of(outputs: Any) -> torch.Tensor | None:
    """Where Trainer looks for it: under its name, or first in a tuple."""
    if isinstance(outputs, Mapping):
        return outputs.get("loss")
    first = outputs[0] if isinstance(outputs, tuple) and outputs else getattr(outputs, "loss", None)
    return first if isinstance(first, torch.Tensor) and first.ndim == 0 else None
