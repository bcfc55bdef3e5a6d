"""A search over a Hugging Face ``Trainer``: the workload builds it, and ``run_trainer(trial, trainer)`` trains it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import Trainer

from stabletune.errors import WorkloadError
from stabletune.monitor.integrations.huggingface import StabilityCallback
from stabletune.trial.process_state import seed_everything
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
    """Train with the trial's optimizer, schedule and seed, for its steps or until it is stopped.

    The trial takes the place of ``learning_rate``, ``adam_*``, ``weight_decay``, ``max_grad_norm``, the schedule,
    ``max_steps``, ``seed`` and ``data_seed``; weight decay spares what the Trainer would spare. The order of the data
    and dropout follow ``trial.seed``, and so does the model that a ``model_init`` makes. A model given as ``model``
    follows it if it was made before the Trainer, which seeds with its own ``seed``. Nothing is saved. Everything else
    is the Trainer's.

    Raises:
        WorkloadError: the model's outputs have no loss of their own, or the Trainer sees several GPUs.
    """
    arguments = trainer.args
    if arguments.n_gpu > 1:
        raise WorkloadError(
            f"run_trainer: the Trainer must see one GPU at most, but sees {arguments.n_gpu}, over which it would split "
            "each batch. Set resources.gpus_per_trial to 1 or less, or CUDA_VISIBLE_DEVICES to one of them."
        )
    _seed(trial, trainer)
    model = trainer.model
    assert model is not None
    trial.watch(model)
    trainer.optimizer = trial.build_optimizer(_groups(trainer, model))
    trainer.lr_scheduler = trial.build_schedule(trainer.optimizer)
    arguments.max_steps, arguments.max_grad_norm, arguments.save_strategy = trial.steps, 0.0, "no"
    trainer.add_callback(_TrialCallback(trial))
    seed_everything(trial.seed)
    trainer.train()
    if trial.history.step == 0:
        raise WorkloadError(
            "run_trainer: the model's outputs must have a loss, which the steps are judged by, but had none. "
            "Give the model its labels, and use neither label_smoothing_factor nor a loss of the Trainer's own."
        )


def _seed(trial: Trial, trainer: Trainer) -> None:
    """Let the trial's seed decide in place of the Trainer's, whose ``__init__`` has seeded with that already."""
    trainer.args.seed = trainer.args.data_seed = trial.seed
    trainer.accelerator.dataloader_config.data_seed = trial.seed  # what the order of the data is read from
    if trainer.model_init is None:
        return
    seed_everything(trial.seed)
    model = trainer.call_model_init()
    # train() would make another model with it, and drop the trial's optimizer
    trainer.model_init = None  # type: ignore[assignment]
    trainer.model = trainer.model_wrapped = model.to(trainer.args.device) if trainer.place_model_on_device else model


def _groups(trainer: Trainer, model: torch.nn.Module) -> list[dict[str, Any]]:
    """What is trained, with weight decay and without."""
    decayed = set(trainer.get_decay_parameter_names(model))
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for name, p in named if name in decayed]},
        {"params": [p for name, p in named if name not in decayed], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
