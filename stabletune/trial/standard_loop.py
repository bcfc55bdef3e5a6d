"""The training loop for workloads that hand over a ``Training``: batches in, calls of ``Trial.step`` out."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint as recomputed

from stabletune.errors import WorkloadError
from stabletune.trial.batch_stream import BatchStream
from stabletune.trial.checkpoint import Checkpoint
from stabletune.trial.training import Training
from stabletune.trial.trial import Trial

LossOfBatch = Callable[[Any], torch.Tensor]
_AUTOCAST_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def run_standard_loop(trial: Trial, training: Training) -> None:
    """Train until the trial is over, then evaluate if the objective asks for it.

    Curvature is measured on the first batch of the run, kept as the fixed probe. A spec with a ``checkpoint`` saves the
    run there now and then, and goes on from it.

    Raises:
        WorkloadError: no batches, a loss that is not a scalar or has no gradient, no way to evaluate though asked to.
        LossFloorError: a loss at or below ``training.loss_floor``.
    """
    if trial.spec.source == "eval" and training.eval_fn is None and training.eval_batches is None:
        raise WorkloadError(
            "objective.source: eval needs eval_batches or eval_fn in Training, but got neither. "
            "Give one of them, or set objective.source to train."
        )
    model = training.model.to(trial.device).train()
    trial.watch(model)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = trial.build_optimizer(training.param_groups or trainable)
    if training.optimizer_state is not None:
        _load_state(optimizer, training.optimizer_state)
    schedule = trial.build_schedule(optimizer)
    scaler = torch.amp.GradScaler(trial.device.type, enabled=training.precision == "float16")
    loss_of = _loss_function(trial, training)
    stream = BatchStream(training.batches, keeps_random_state=trial.spec.checkpoint is not None)
    batches = (move(batch, trial.device) for batch in stream)
    probe = next(batches)
    pending: list[Any] = [probe]
    checkpoint = None
    if trial.spec.checkpoint is not None:
        parts = {"model": model, "optimizer": optimizer, "schedule": schedule, "scaler": scaler}
        checkpoint = Checkpoint(trial.spec.checkpoint, trial, parts, stream, seconds=trial.spec.checkpoint_seconds)
        if checkpoint.restore():
            pending.clear()
    while not trial.is_over:
        optimizer.zero_grad(set_to_none=True)
        total = 0.0
        used = []
        for _ in range(training.accumulate):
            used.append(pending.pop() if pending else next(batches))
            loss = loss_of(used[-1])
            scaler.scale(loss / training.accumulate).backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        # the trial ends at a loss that is not finite: the parameters that gave it are left to be looked at
        if math.isfinite(total) and _step(optimizer, scaler):
            schedule.step()
        trial.step(total / training.accumulate, lambda: loss_of(probe), own=_mean_loss(loss_of, used))
        if checkpoint is not None and not trial.is_over:
            checkpoint.save_if_due()
    if trial.spec.source == "eval" and trial.verdict is None:
        trial.report_eval(_evaluate(trial, training, loss_of))


def _mean_loss(loss_of: LossOfBatch, batches: Sequence[Any]) -> Callable[[], torch.Tensor]:
    """The mean over micro-batches, of whose graphs one is held at a time, as in training."""
    if len(batches) == 1:
        return lambda: loss_of(batches[0])
    return lambda: torch.stack([recomputed(loss_of, batch, use_reentrant=False) for batch in batches]).mean()


def _step(optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler) -> bool:
    """Step on unscaled gradients; False when the scaler skipped the step because they overflowed."""
    scaler.unscale_(optimizer)
    scale = scaler.get_scale()
    scaler.step(optimizer)
    scaler.update()
    return not scaler.is_enabled() or scaler.get_scale() >= scale


def move(batch: Any, device: torch.device) -> Any:
    """The batch on ``device``: what has a method ``to`` is asked itself, containers keep their type."""
    if isinstance(batch, type):
        return batch
    if callable(getattr(batch, "to", None)):
        return batch.to(device)
    if isinstance(batch, Mapping):
        return _move_mapping(batch, device)
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(move(value, device) for value in batch))
    if isinstance(batch, (tuple, list)):
        return type(batch)([move(value, device) for value in batch])
    if dataclasses.is_dataclass(batch):
        moved = copy.copy(batch)
        for name in (field.name for field in dataclasses.fields(batch) if hasattr(batch, field.name)):
            object.__setattr__(moved, name, move(getattr(batch, name), device))  # works on frozen ones too
        return moved
    return batch


def _move_mapping(batch: Mapping[Any, Any], device: torch.device) -> Mapping[Any, Any]:
    entries = {key: move(value, device) for key, value in batch.items()}
    if isinstance(batch, MutableMapping):
        moved = copy.copy(batch)
        for key, value in entries.items():
            moved[key] = value
        return moved
    return type(batch)(entries)  # type: ignore[call-arg]


def _loss_function(trial: Trial, training: Training) -> LossOfBatch:
    dtype = _AUTOCAST_DTYPES.get(training.precision)

    def loss_of(batch: Any) -> torch.Tensor:
        autocast = torch.autocast(trial.device.type, dtype=dtype) if dtype else contextlib.nullcontext()
        with autocast:
            loss = training.loss_fn(training.model, batch)
        if not isinstance(loss, torch.Tensor):
            raise WorkloadError(
                f"loss_fn: must return a tensor, but got {type(loss).__name__}. Return the loss itself."
            )
        if loss.numel() != 1:
            raise WorkloadError(
                f"loss_fn: must return a scalar, but got a tensor of shape {tuple(loss.shape)}. "
                "Return the mean, for example loss.mean()."
            )
        if not loss.requires_grad and torch.is_grad_enabled():
            raise WorkloadError(
                "loss_fn: must return a loss with a gradient, but got one that depends on no trainable parameter. "
                "Remove detach(), item() or no_grad() on the way from the parameters to the loss."
            )
        return loss.reshape(())

    return loss_of


def _load_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load the moments and step counts; the trial's hyperparameters stay, a scheduler's ``initial_lr`` goes."""
    settings = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, kept in zip(optimizer.param_groups, settings, strict=True):
        for foreign in group.keys() - kept.keys() - {"params"}:
            del group[foreign]
        group.update(kept)


def _evaluate(trial: Trial, training: Training, loss_of: LossOfBatch) -> float:
    model = training.model
    model.eval()
    try:
        if training.eval_fn is not None:
            return float(training.eval_fn(model))
        assert training.eval_batches is not None
        losses = [float(loss_of(move(batch, trial.device)).detach()) for batch in training.eval_batches]
    finally:
        model.train()
    if not losses:
        raise WorkloadError(
            "Training.eval_batches: must yield at least one batch, but got none. Check the data set, or remove it."
        )
    return sum(losses) / len(losses)
