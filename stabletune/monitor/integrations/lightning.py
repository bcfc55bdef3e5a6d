"""For Lightning's ``Trainer``: ``Trainer(..., callbacks=[StabilityCallback()])``."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from torchmetrics import Metric

from stabletune.errors import MeasurementError
from stabletune.monitor.inspection.spike_watch import NORM_COST
from stabletune.monitor.integrations.watch import Watch
from stabletune.signals.gradient_norm import coming_gradient_norm

_log = logging.getLogger("stabletune")


class StabilityCallback(Callback):
    """Watches the one optimizer of a ``LightningModule``; takes what ``Watch`` takes, and ``loss_fn``.

    The batches of a step are kept until it, so that the loss can be computed again: by ``loss_fn(module, batch)``, or
    by the module's own ``training_step`` with its logging switched off. With several processes the first one measures,
    on its own batches and the unwrapped module, so that nobody waits for anybody; a guard would act in one process
    only, and is refused there.

    Args:
        loss_fn: the loss of a batch, for a ``training_step`` that may not be called twice.
        options: for ``Watch``; its ``readings`` are ``callback.watch.readings``.
    """

    def __init__(self, *, loss_fn: Callable[[Any, Any], torch.Tensor] | None = None, **options: Any) -> None:
        self.watch = Watch(**options)
        self._loss_fn = loss_fn
        self._batches: list[tuple[Any, int]] = []
        self._losses: list[torch.Tensor] = []
        self._n_steps = 0
        self._is_attached = False
        self._guard_state: dict[str, Any] | None = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Attach to the module and its optimizer.

        Raises:
            MeasurementError: there is not exactly one optimizer.
        """
        if trainer.world_size > 1:
            self.watch.refuse_to_act_alone()
        if not trainer.is_global_zero:
            return
        if len(trainer.optimizers) != 1:
            raise MeasurementError(
                f"configure_optimizers: must return one optimizer, but got {len(trainer.optimizers)}. "
                "Watch each with a StabilityMonitor of its own in training_step."
            )
        if not pl_module.automatic_optimization:
            _log.warning("stabletune: a module with automatic_optimization = False is not measured by the callback")
            return
        self._batches, self._losses = [], []
        self.begin(pl_module, trainer.optimizers[0], start_step=trainer.global_step)
        self._is_attached = True
        self._n_steps = trainer.global_step
        self.watch.restore_guard(self._guard_state)
        self._guard_state = None  # it is that of this training, and not of the next

    def begin(self, module: torch.nn.Module, optimizer: torch.optim.Optimizer, *, start_step: int) -> None:
        """Make ready before the first step, or the first after ``start_step``."""
        self.watch.begin(module, optimizer, start_step=start_step)

    def take(self, losses: Sequence[torch.Tensor], closure: Callable[[], torch.Tensor]) -> bool:
        """Take a step, with the shares of the loss and what computes it again; True ends the training."""
        self.watch.step(losses, closure)
        return False

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Read where the optimizer has taken its step; Lightning drops the gradients only before the next one."""
        if not self._is_attached or outputs is None:
            return
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if loss is not None:  # else training_step has passed this batch over
            self._batches.append((batch, batch_idx))
            self._losses.append(loss.detach())
        if trainer.global_step == self._n_steps:
            return
        self._n_steps = trainer.global_step
        batches, losses = self._batches, self._losses
        self._batches, self._losses = [], []
        if not batches:
            return
        share = 1.0 / trainer.accumulate_grad_batches  # by which Lightning has divided the losses that it hands over

        def closure() -> torch.Tensor:
            with (
                _without_logging(pl_module),
                _keeping_metrics(pl_module),
                trainer.precision_plugin.train_step_context(),
            ):
                return torch.stack([self._loss_of(pl_module, *each) * share for each in batches]).sum()

        trainer.should_stop |= self.take(losses, closure)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Note the size of the gradient before it is clipped."""
        if self._is_attached and self.watch.monitor is not None and trainer.gradient_clip_val:
            self.watch.monitor.note_gradient_norm(coming_gradient_norm(optimizer))
            self.watch.monitor.charge(NORM_COST)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Detach."""
        self.watch.end()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Detach, and let the sinks post what they have."""
        self.watch.end()

    def state_dict(self) -> dict[str, Any]:
        """The guard's state, which Lightning saves with its checkpoints."""
        found = self.watch.guard_state()
        return {} if found is None else {"guard": found}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the guard's state until there is a guard."""
        self._guard_state = state_dict.get("guard")

    def _loss_of(self, module: Any, batch: Any, batch_idx: int) -> torch.Tensor:
        if self._loss_fn is not None:
            return self._loss_fn(module, batch)
        output = module.training_step(batch, batch_idx)
        loss: torch.Tensor = output["loss"] if isinstance(output, Mapping) else output
        return loss


@contextlib.contextmanager
def _without_logging(module: Any) -> Iterator[None]:
    """``log`` and ``log_dict`` of a module do nothing meanwhile: a loss that is computed again is no news."""
    names = [name for name in ("log", "log_dict") if name not in vars(module)]
    for name in names:
        object.__setattr__(module, name, lambda *args, **kwargs: None)
    try:
        yield
    finally:
        for name in names:
            object.__delattr__(module, name)


@contextlib.contextmanager
def _keeping_metrics(module: Any) -> Iterator[None]:
    """Metrics of a module stay what they are, though the loss that is computed again updates them."""
    metrics = [part for part in module.modules() if isinstance(part, Metric)]
    kept = [{name: _copied(value) for name, value in vars(metric).items()} for metric in metrics]
    try:
        yield
    finally:
        for metric, state in zip(metrics, kept, strict=True):
            vars(metric).update(state)


def _copied(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    return list(value) if isinstance(value, list) else value
