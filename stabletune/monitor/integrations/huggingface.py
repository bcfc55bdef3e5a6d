"""For Hugging Face's ``Trainer``: ``Trainer(..., callbacks=[StabilityCallback()])``."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from transformers import TrainerCallback

from stabletune.errors import MeasurementError
from stabletune.monitor.inspection.spike_watch import NORM_COST
from stabletune.monitor.integrations.watch import Watch
from stabletune.signals.gradient_norm import coming_gradient_norm

_SAVED_AS = "stabletune_guard"
_log = logging.getLogger("stabletune")


class _MicroBatch(NamedTuple):
    """What the model was called with, the loss it gave, and the gradients that came back to that loss."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    loss: torch.Tensor
    gradients: list[torch.Tensor]

    @property
    def share(self) -> torch.Tensor:
        """D total / d loss, by which the loss enters what is trained on."""
        return torch.stack(self.gradients).sum()

    def loss_again(self, model: torch.nn.Module) -> torch.Tensor:
        """The loss computed again, times its share."""
        loss = _loss_of(model(*self.args, **self.kwargs))
        if loss is None:
            raise MeasurementError(
                "StabilityCallback: the model must give a loss each time it is called with the same inputs, "
                "but gave none when the loss was computed again. Let its forward depend on its inputs alone."
            )
        return loss * self.share


class StabilityCallback(TrainerCallback):
    """Watches a ``Trainer``'s optimizer; takes what ``Watch`` takes, and ``callback.watch.readings`` are its readings.

    The inputs of each micro-batch are kept until its optimizer step, so that the loss can be computed again. The loss
    is the model's own, ``outputs.loss``: a Trainer that trains another (``label_smoothing_factor``, or a
    ``compute_loss`` of its own) cannot be measured, which is logged once; what one adds to the model's own goes unseen.

    Loss and S are those of L = Σ s_i l_i over the step's micro-batches: l_i is what the model gave, s_i = dL/dl_i the
    gradient that came back to it, whatever the Trainer divided or multiplied by. With W processes the first one
    measures, on its own micro-batches and the unwrapped model, so that nobody waits for anybody. What is trained is the
    mean over the processes of their L; its own is the mean loss of its own tokens, times its tokens / their mean over
    the processes where the model takes ``num_items_in_batch``. S takes its curvature from that L, and v̂ from the
    gradient averaged over all. A guard would act in one process only, and is refused there.

    Where the Trainer clips (``max_grad_norm``), the gradient's size is taken before it does.

    A guard's state is in the checkpoints' ``trainer_state.json``, and a resumed training goes on from it. A Trainer
    that splits its batches over several GPUs in one process (``torch.nn.DataParallel``) is not measured.
    """

    def __init__(self, **options: Any) -> None:
        self.watch = Watch(**options)
        self._kept: list[_MicroBatch] = []
        self._hook: Any = None
        self._scaler: Any = None
        self._clipped: torch.optim.Optimizer | None = None
        self._ends_the_step: Callable[[], bool] = lambda: True
        self._is_measuring = False
        self._has_said_why_not = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """Attach to the model and its optimizer, and detach from those of a training that was cut off."""
        if args.world_size > 1:
            self.watch.refuse_to_act_alone()
        self._detach()
        if not state.is_world_process_zero:
            return
        if args.n_gpu > 1:
            self._say_once(
                f"its batches are split over {args.n_gpu} GPUs in one process (torch.nn.DataParallel). "
                "Start one process for each with torchrun, or show it one GPU"
            )
            return
        optimizer = parts["optimizer"]
        self._scaler = getattr(optimizer, "scaler", None)
        bare = getattr(optimizer, "optimizer", optimizer)
        self._clipped = bare if args.max_grad_norm and args.max_grad_norm > 0 else None
        self._ends_the_step = lambda: getattr(optimizer, "gradient_state", _EachPass).sync_gradients
        self.begin(parts["model"], bare, start_step=state.global_step)
        self._restore_guard(state)
        self._hook = parts["model"].register_forward_hook(_Forward(self), with_kwargs=True)

    def begin(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, *, start_step: int) -> None:
        """Make ready before the first step, or the first after ``start_step``."""
        self.watch.begin(model, optimizer, start_step=start_step)

    def take(self, losses: Sequence[torch.Tensor], closure: Callable[[], torch.Tensor]) -> bool:
        """Take a step, with the shares of the loss and what computes it again; True ends the training."""
        self.watch.step(losses, closure)
        return False

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """Read after the optimizer's step, while the gradients are still there."""
        if self._hook is None:
            state.stateful_callbacks.pop(_SAVED_AS, None)  # of a watch that has ended since
            return
        model, kept = parts["model"], self._kept
        self._kept = []
        if not kept or not all(batch.gradients for batch in kept):
            self._say_once("what is trained is not the loss that the model's outputs have")
            return

        def closure() -> torch.Tensor:
            return torch.stack([batch.loss_again(model) for batch in kept]).sum()

        losses: list[torch.Tensor] = []
        with self._ending_at_an_error():
            losses = [batch.loss * batch.share for batch in kept]
        if not losses:
            return
        self._is_measuring = True
        try:
            control.should_training_stop |= self.take(losses, closure)
        finally:
            self._is_measuring = False
        guard_state = self.watch.guard_state()
        if guard_state is None:
            state.stateful_callbacks.pop(_SAVED_AS, None)
        else:
            state.stateful_callbacks[_SAVED_AS] = guard_state

    def on_train_end(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """Detach."""
        self._detach()
        self.watch.end()

    def keep(self, model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: Any) -> None:
        """Keep a micro-batch that is trained on."""
        with self._ending_at_an_error():
            loss = _loss_of(outputs)
            if loss is None or not loss.requires_grad or not model.training or self._is_measuring:
                return
            # a copy, for the Trainer multiplies the loss itself by the number of processes
            batch = _MicroBatch(args, kwargs, loss.detach().clone(), [])
            loss.register_hook(lambda gradient: self._note_gradient(batch, gradient))  # type: ignore[no-untyped-call]
            self._kept.append(batch)

    def _note_gradient(self, batch: _MicroBatch, gradient: torch.Tensor) -> None:
        """Note the gradient without the factor of the ``GradScaler``, which waits for no GPU."""
        with self._ending_at_an_error():
            exact = gradient.detach().to(torch.promote_types(gradient.dtype, torch.float32))
            scale = 1.0 if self._scaler is None else self._scaler.scale(torch.ones_like(exact))
            batch.gradients.append(exact / scale)
            if self._clipped is not None and self._ends_the_step():
                # once the pass is over: twice, as the processes' gradients are averaged by what was put off before
                _at_the_end_of_the_pass(lambda: _at_the_end_of_the_pass(self._note_norm))

    def _note_norm(self) -> None:
        """Note the size of the gradient that the micro-batches so far have made, before Trainer clips it."""
        with self._ending_at_an_error():
            monitor = self.watch.monitor
            if self._clipped is None or monitor is None:
                return
            scale = 1.0 if self._scaler is None else float(self._scaler.get_scale())
            monitor.note_gradient_norm(coming_gradient_norm(self._clipped) / scale)
            monitor.charge(NORM_COST)

    @contextlib.contextmanager
    def _ending_at_an_error(self) -> Iterator[None]:
        """What fails in here ends the watching, is logged, and does not reach the training."""
        try:
            yield
        except Exception:
            self._detach()
            self.watch.end()
            _log.exception("stabletune: this Trainer is no longer measured; the training goes on")

    def _restore_guard(self, state: Any) -> None:
        """Go on from what a checkpoint has of the guard, which is of no use to a later one once steps went without."""
        self.watch.restore_guard(state.stateful_callbacks.pop(_SAVED_AS, None))

    def _say_once(self, why: str) -> None:
        if not self._has_said_why_not:
            self._has_said_why_not = True
            _log.warning("stabletune: this Trainer is not measured: %s", why)

    def _detach(self) -> None:
        if self._hook is not None:
            self._hook.remove()
        self._hook, self._scaler, self._clipped, self._kept = None, None, None, []


class _EachPass:
    """What an optimizer that accelerate has not wrapped says: each backward pass may be the last of its step."""

    sync_gradients = True


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


def _at_the_end_of_the_pass(action: Callable[[], None]) -> None:
    """Put off until the backward pass that is under way has left its gradients in ``p.grad``."""
    torch.autograd.Variable._execution_engine.queue_callback(action)


def _loss_of(outputs: Any) -> torch.Tensor | None:
    """Where Trainer looks for it: under its name, or first in a tuple."""
    if isinstance(outputs, Mapping):
        first = outputs.get("loss")
    else:
        first = outputs[0] if isinstance(outputs, tuple) and outputs else getattr(outputs, "loss", None)
    return first if isinstance(first, torch.Tensor) and first.ndim == 0 else None
