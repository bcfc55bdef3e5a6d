"""Results to write in tests: a trial with chosen losses, readings and spikes, without any training."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stabletune.records import Episode, Measurement, Purpose, Status, TrialResult, TrialSpec, WorkloadReference

PARAMS: dict[str, Any] = {
    "lr": 1e-3,
    "beta1": 0.9,
    "beta2": 0.999,
    "eps": 1e-8,
    "weight_decay": 0.01,
    "max_grad_norm": None,
    "update_clip": None,
    "second_moment_clip": None,
    "second_moment_reset": None,
    "beta2_exponent": None,
    "amsgrad": False,
    "warmup_ratio": 0.0,
}


def make_spec(number: int = 0, *, purpose: Purpose = "search", seed: int = 0, **changes: Any) -> TrialSpec:
    """A spec on the quadratic; ``changes`` replace hyperparameters."""
    return TrialSpec(
        number=number,
        purpose=purpose,
        seed=seed,
        steps=500,
        full_steps=2500,
        params={**PARAMS, **changes},
        workload=WorkloadReference("quadratic"),
        workload_args={},
        schedule="constant",
        metric="final_loss",
        source="train",
        target=None,
        overhead=0.15,
        every=None,
        stops_on_spike=True,
        predicts=True,
    )


def make_result(
    spec: TrialSpec | None = None,
    *,
    status: Status = "completed",
    reason: str = "all steps done",
    losses: NDArray[np.float64] | None = None,
    **changes: Any,
) -> TrialResult:
    """A result with a falling loss unless ``losses`` says otherwise."""
    steps = np.arange(500, dtype=np.float64)
    fields: dict[str, Any] = {"objective": 0.5, "overhead": 0.1, "seconds": 1.5, **changes}
    return TrialResult(
        spec=spec or make_spec(),
        status=status,
        reason=reason,
        losses=np.exp(-steps / 100) if losses is None else losses,
        **fields,
    )


def make_measurement(step: int, **fields: Any) -> Measurement:
    """A reading at ``step`` with only the fields named."""
    return Measurement(step=step, loss=fields.pop("loss", 1.0), lr=1e-3, **fields)


def make_episode(start: int, *, worst_ratio: float = 5.0) -> Episode:
    """A spike of ten steps."""
    return Episode(start=start, end=start + 9, worst_ratio=worst_ratio, severity=8.0, steps_lost=20)
