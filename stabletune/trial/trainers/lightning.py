"""A search over a ``LightningModule``: ``run_module(trial, module, loader)`` trains it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer

from stabletune.errors import WorkloadError
from stabletune.monitor.integrations.lightning import StabilityCallback
from stabletune.trial.process_state import seed_everything
from stabletune.trial.trial import Trial


class _TrialCallback(StabilityCallback):
    """Hands each optimizer step to a trial, and stops where the trial says so."""

    def __init__(self, trial: Trial) -> None:
        super().__init__()
        self._trial = trial

    def begin(self, module: torch.nn.Module, optimizer: torch.optim.Optimizer, *, start_step: int) -> None:
        """Nothing: the trial made its optimizer itself."""

    def take(self, losses: Sequence[torch.Tensor], closure: Callable[[], torch.Tensor]) -> bool:
        """A step of the trial."""
        return self._trial.step(torch.stack([loss.float() for loss in losses]).sum(), closure)


def run_module(trial: Trial, module: LightningModule, train_dataloaders: Any, **options: Any) -> Trainer:
    """Train with the trial's optimizer, schedule and seed, for its steps or until it is stopped.

    They take the place of ``configure_optimizers``; clipping is the trial's own. Shuffling and dropout follow
    ``trial.seed``, whatever ``seed_everything`` was given before. Nothing is saved or logged.

    Args:
        trial: the trial.
        module: to be trained; it must optimize automatically.
        train_dataloaders: as for ``Trainer.fit``.
        options: further ones for the ``Trainer``, such as ``precision`` or ``accumulate_grad_batches``; no clipping.

    Returns:
        The Trainer, to validate with before ``trial.report_eval``.

    Raises:
        WorkloadError: the Trainer is to clip gradients beside the trial.
    """
    if options.get("gradient_clip_val"):
        raise WorkloadError(
            f"run_module: gradient_clip_val must be left out, but got {options['gradient_clip_val']!r}. "
            "Search max_grad_norm, which the trial clips by."
        )
    trial.watch(module)
    optimizer = trial.build_optimizer([p for p in module.parameters() if p.requires_grad])
    schedule = {"scheduler": trial.build_schedule(optimizer), "interval": "step"}
    object.__setattr__(module, "configure_optimizers", lambda: {"optimizer": optimizer, "lr_scheduler": schedule})
    trainer = Trainer(
        max_steps=trial.steps,
        accelerator="gpu" if trial.device.type == "cuda" else "cpu",
        devices=1,
        callbacks=[*options.pop("callbacks", ()), _TrialCallback(trial)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    seed_everything(trial.seed)
    trainer.fit(module, train_dataloaders)
    return trainer
