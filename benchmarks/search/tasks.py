"""What is tuned: six workloads, two of them minibatch, each with the same space, baseline and budget."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from stabletune.records import WorkloadReference
from stabletune.trial.training import Training
from stabletune.trial.workload import load_function

_CORPUS = Path(__file__).resolve().parents[1] / "corpus" / "workloads.py"
LR = (1e-4, 1e-1)
BETA2 = (0.9, 0.9999)
BASELINE = {"lr": 1e-3, "beta2": 0.999}
TRIALS, TRIAL_STEPS, FULL_STEPS, CONFIRM_SEEDS = 40, 500, 2500, 5


@dataclasses.dataclass(frozen=True)
class Task:
    """A workload, built by ``function`` of the package or of ``file`` with ``arguments``."""

    name: str
    function: str
    arguments: Mapping[str, Any]
    file: Path | None = None

    @property
    def workload(self) -> str:
        """The workload as a config names it."""
        return self.function if self.file is None else f"{self.file}:{self.function}"

    @property
    def reference(self) -> WorkloadReference:
        """The workload as a worker is told it."""
        return WorkloadReference(self.function, path=None if self.file is None else str(self.file))

    def build(self, seed: int) -> Training:
        """Model, loss and batches of a run, seeded as stabletune seeds them."""
        torch.manual_seed(seed)
        return load_function(self.reference)(seed, torch.device("cpu"), **self.arguments)


TASKS = {
    task.name: task
    for task in (
        Task("tanh_regression", "tanh_regression", {}),
        Task("diabetes", "diabetes_mlp", {"width": 32}),
        Task("physics_informed", "pinn", {}),
        Task("autoencoder", "digits_autoencoder", {}),
        Task("recurrent", "build_recurrent", {"kind": "gru", "width": 16, "batch_size": 12}, _CORPUS),
        Task("cnn", "build_cnn_mse", {"channels": 8, "batch_size": 50}, _CORPUS),
    )
}
