"""For Hugging Face's ``Trainer``: ``Trainer(..., callbacks=[StabilityCallback()])``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import TrainerCallback

from stabletune.monitor.integrations.watch import Watch

_log = logging.getLogger("stabletune")


class StabilityCallback(TrainerCallback):
    """Watches a ``Trainer``'s optimizer; takes what ``Watch`` takes, and ``callback.watch.readings`` are its readings.

    The inputs of each micro-batch are kept until its optimizer step, so that the loss can be computed again. The loss
    is the model's own, ``outputs.loss``: a Trainer that computes another (``label_smoothing_factor``, say) cannot be
    measured, which is logged once. With several processes the first one measures, on its own micro-batches and the
    unwrapped model, so that nobody waits for anybody; a guard would act in one process only, and is refused there.
    """

    def __init__(self, **options: Any) -> None:
        self.watch = Watch(**options)
        self._batches: list[dict[str, Any]] = []
        self._losses: list[torch.Tensor] = []
        self._hooks: list[Any] = []
        self._is_measuring = False
        self._has_said_why_not = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """Attach to the model and its optimizer."""
        if args.world_size > 1:
            self.watch.refuse_to_act_alone()
        if not state.is_world_process_zero:
            return
        optimizer = parts["optimizer"]
        self.begin(parts["model"], getattr(optimizer, "optimizer", optimizer))
        self._hooks = [parts["model"].register_forward_hook(self._keep, with_kwargs=True)]

    def begin(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Make ready before the first step."""
        self.watch.begin(model, optimizer)

    def take(self, losses: Sequence[torch.Tensor], closure: Callable[[], torch.Tensor]) -> bool:
        """Take a step, with the shares of the loss and what computes it again; True ends the training."""
        self.watch.step(losses, closure)
        return False

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """Read after the optimizer's step, while the gradients are still there."""
        if not self._hooks:
            return
        model, batches, losses = parts["model"], self._batches, self._losses
        self._batches, self._losses = [], []
        if not losses:
            if not self._has_said_why_not:
                self._has_said_why_not = True
                _log.warning("stabletune: the model's outputs have no loss of their own: this Trainer is not measured")
            return
        # with num_items_in_batch the losses of the micro-batches are shares already; else the Trainer takes their mean
        share = 1.0 if "num_items_in_batch" in batches[0] else 1.0 / len(batches)

        def closure() -> torch.Tensor:
            return torch.stack([model(**batch).loss * share for batch in batches]).sum()

        self._is_measuring = True
        try:
            control.should_training_stop |= self.take([loss * share for loss in losses], closure)
        finally:
            self._is_measuring = False

    def on_train_end(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """Detach."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        self.watch.end()

    def _keep(self, model: torch.nn.Module, args: Any, kwargs: dict[str, Any], outputs: Any) -> None:
        loss = outputs.get("loss") if hasattr(outputs, "get") else None
        if loss is not None and model.training and torch.is_grad_enabled() and not self._is_measuring:
            self._batches.append(kwargs)
            self._losses.append(loss.detach())
