"""What one run tells of its settings, as plain data that is stored with the study."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from stabletune.judgement.history import TRAILING_WINDOW, trailing_median
from stabletune.records import TrialResult
from stabletune.study.feasibility import instability

OCTAVES = 6
LOWEST_SHARE = 1e-12


@dataclasses.dataclass(frozen=True, kw_only=True)
class Observation:
    """One run of the settings at ``place``.

    ``steps`` were taken, at the last of which it spiked or was stopped before it would, if ``has_spiked``. ``curve`` is
    a list of (step, log loss above the floor), free of spikes, on the schedule of ``full_steps``; ``log_initial`` the
    same at the start. ``objective`` is None unless the run completed; ``risk`` is the forecast of a clean short trial;
    ``severity`` how bad a spike was (``feasibility.instability``).
    """

    number: int
    place: Sequence[float]
    lr: float
    warmup_steps: int
    full_steps: int
    steps: int
    has_spiked: bool
    curve: Sequence[Sequence[float]]
    log_initial: float
    loss_floor: float
    objective: float | None
    risk: float | None
    severity: float

    def as_data(self) -> dict[str, Any]:
        """Plain data; ``Observation(**data)`` reads it."""
        return dataclasses.asdict(self)


def observe(result: TrialResult, place: Sequence[float]) -> Observation | None:
    """The observation of a run at ``place``; None of one that failed or took no step."""
    losses: Sequence[float] = result.losses.tolist()
    if result.status == "failed" or not losses:
        return None
    has_spiked = result.is_spiky or result.status == "stopped"
    steps = min([result.steps, *(episode.start for episode in result.episodes)])
    n_clean = steps - 1 if has_spiked else steps
    start = [loss for loss in losses[:10] if math.isfinite(loss)]
    height = float(np.median(start)) - result.loss_floor if start else 1.0
    lowest = LOWEST_SHARE * max(height, 1e-300)
    curve = [
        (step, math.log(max(trailing_median(losses, step) - result.loss_floor, lowest)))
        for step in _steps_to_keep(n_clean, result.spec.full_steps, is_whole=n_clean == result.spec.steps)
    ]
    return Observation(
        number=result.spec.number,
        place=tuple(place),
        lr=float(result.spec.params["lr"]),
        warmup_steps=result.spec.warmup_steps,
        full_steps=result.spec.full_steps,
        steps=steps,
        has_spiked=has_spiked,
        curve=curve,
        log_initial=math.log(max(height, 1e-300)),
        loss_floor=result.loss_floor,
        objective=result.objective,
        risk=result.risk,
        severity=instability(result) if has_spiked else 0.0,
    )


def marks(full_steps: int) -> list[int]:
    """The steps at which losses are compared: the full horizon and its halves, down to the trailing window."""
    octaves = [round(full_steps / 2**n) for n in range(OCTAVES, -1, -1)]
    return [step for step in dict.fromkeys(octaves) if step >= TRAILING_WINDOW]


def _steps_to_keep(n_clean: int, full_steps: int, *, is_whole: bool) -> list[int]:
    """The marks passed without a spike and the last such step, if it closes a whole window or the run."""
    kept = [step for step in marks(full_steps) if step <= n_clean]
    is_known = n_clean in kept or (n_clean < TRAILING_WINDOW and not is_whole)
    return kept if is_known else [*kept, n_clean]
