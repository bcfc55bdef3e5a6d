"""A search over a Hugging Face ``Trainer``: the workload builds it, and ``run_trainer(trial, trainer)`` trains it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import Trainer

from stabletune.errors import WorkloadError
from stabletune.monitor.integrations.huggingface import StabilityCallback
from stabletune.trial.trial import Trial


class _TrialCallback(StabilityCallback):
    """Hands each optimizer step to a trial, and stops where the trial says so."""

    def __init__(self, trial: Trial) -> None:
        super().__init__()
        self._trial = trial

    def begin(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, *, start_step: int) -> None:
        """Nothing: the trial made its optimizer itself."""

    def take(self, losses: Sequence[torch.Tensor], closure: Callable[[], torch.Tensor]) -> bool:
        """A step of the trial."""
        return self._trial.step(torch.stack([loss.float() for loss in losses]).sum(), closure)


def run_trainer(trial: Trial, trainer: Trainer) -> None:
    """Train with the trial's optimizer and schedule, for its steps or until it is stopped.

    The trial takes the place of ``learning_rate``, ``adam_*``, ``weight_decay``, ``max_grad_norm``, the schedule and
    ``max_steps``; weight decay spares what the Trainer would spare. Nothing is saved. Everything else is the Trainer's.

    Raises:
        WorkloadError: the model's outputs have no loss of their own.
    """
    model, arguments = trainer.model, trainer.args
    assert model is not None
    decayed = set(trainer.get_decay_parameter_names(model))
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for name, p in named if name in decayed]},
        {"params": [p for name, p in named if name not in decayed], "weight_decay": 0.0},
    ]
    trial.watch(model)
    trainer.optimizer = trial.build_optimizer([group for group in groups if group["params"]])
    trainer.lr_scheduler = trial.build_schedule(trainer.optimizer)
    arguments.max_steps, arguments.max_grad_norm, arguments.save_strategy = trial.steps, 0.0, "no"
    trainer.add_callback(_TrialCallback(trial))
    trainer.train()
    if trial.history.step == 0:
        raise WorkloadError(
            "run_trainer: the model's outputs must have a loss, which the steps are judged by, but had none. "
            "Give the model its labels, and use neither label_smoothing_factor nor a loss of the Trainer's own."
        )
