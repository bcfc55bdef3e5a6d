"""The frozen nouns that cross process borders: plain data, picklable, free of torch, optuna and ray."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stabletune.schedules import steps_of

FORMAT_VERSION = 1
UNEXPLAINED = "unexplained"
OWN_LOOP = "own loop"
SECONDS_WITHOUT_A_STEP = 1800.0  # a run with no other limit is taken for hung then
MEASUREMENTS_FILE, ALERTS_FILE, GUARD_FILE = "measurements.jsonl", "alerts.jsonl", "guard.jsonl"

Status = Literal["completed", "stopped", "diverged", "pruned", "failed"]
Purpose = Literal["search", "confirmation", "baseline", "recommended"]
Level = Literal["calm", "approaching", "unstable", "spiked"]


def finite_or_none(value: Any) -> Any:
    """``value`` with every non-finite float in it replaced by None, which JSON can say."""
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite_or_none(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite_or_none(entry) for entry in value]
    return value


def as_data(record: Any) -> dict[str, Any]:
    """One of these records, or another dataclass, as what is written to files and sent: versioned, as JSON can say."""
    return {**finite_or_none(dataclasses.asdict(record)), "version": FORMAT_VERSION}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShadowSharpness:
    """What the sharpness ratio would be with another ``beta2`` on the same trajectory.

    ``lower_bound`` and ``estimate``, which is nearer, come from the products of the run's own measurement; ``exact``
    from products of its own, None if not asked for or not converged.
    """

    beta2: float
    lower_bound: float | None = None
    estimate: float | None = None
    exact: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measurement:
    """What was read at one step; None where it was not measured. Definitions: the modules of ``signals``.

    ``step`` counts the calls of ``StabilityMonitor.step`` from 1; ``loss`` is the loss given there; ``lr`` is the
    first parameter group's. ``foreseen_sharpness_ratio`` is what S would be had the Hessian stayed as it was at the
    reading before; ``largest_logits`` the largest input of each softmax of the forward pass, in its order.
    ``sharpness`` is the raw Hessian's, read on request only.
    """

    step: int
    loss: float
    lr: float
    sharpness_ratio: float | None = None
    residual: float | None = None
    has_converged: bool | None = None
    sharpness_ratio_masked: float | None = None
    gradient_curvature_ratio: float | None = None
    gradient_curvature_ratio_paper: float | None = None
    alignment: float | None = None
    v_hat_staleness: float | None = None
    v_hat_decay: float | None = None
    update_rms: float | None = None
    gradient_norm: float | None = None
    oscillation_energy: float | None = None
    oscillation_refill: float | None = None
    shadow_sharpness_ratios: tuple[ShadowSharpness, ...] | None = None
    sharpness: float | None = None
    foreseen_sharpness_ratio: float | None = None
    largest_logits: tuple[float, ...] | None = None

    def completed_by(self, other: Measurement | None) -> Measurement:
        """Return this measurement with what only ``other``, of the same step, has read."""
        if other is None:
            return self
        missing = {name: value for name, value in vars(other).items() if getattr(self, name) is None}
        return dataclasses.replace(self, **missing)


@dataclasses.dataclass(frozen=True)
class WorkloadReference:
    """Where the user's function lives: a file's absolute path, a module, or neither for a built-in name."""

    function: str
    path: str | None = None
    module: str | None = None

    @property
    def file(self) -> Path | None:
        """The file, if that is where it lives."""
        return None if self.path is None else Path(self.path)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrialSpec:
    """Everything a worker needs to run one trial; the same spec gives the same trial.

    ``params`` holds every optimizer hyperparameter and ``warmup_ratio``; ``workload_args`` the function's keywords,
    searched ones included. ``pace_limits`` are pairs of (step, loss): a trailing median above the loss there is pruned.
    ``shadow_beta2`` names the values of beta2 that are followed beside the run's own; ``sharpness`` asks for the raw
    Hessian's. ``checkpoint`` is the file in which a long run is saved every ``checkpoint_seconds``, and from which it
    goes on. ``seconds`` and ``memory_gib`` are the most that the run may take.
    """

    number: int
    purpose: Purpose
    seed: int
    steps: int
    full_steps: int
    params: Mapping[str, Any]
    workload: WorkloadReference
    workload_args: Mapping[str, Any]
    schedule: str
    metric: str
    source: str
    target: float | None
    overhead: float | None
    every: int | None
    stops_on_spike: bool
    predicts: bool
    pace_limits: tuple[tuple[int, float], ...] = ()
    device: str = "cpu"
    threads: int = 1
    shadow_beta2: tuple[float, ...] = ()
    shadow_exact: bool = False
    sharpness: bool = False
    checkpoint: str | None = None
    checkpoint_seconds: float = 60.0
    seconds: float | None = None
    memory_gib: float | None = None

    @property
    def warmup_steps(self) -> int:
        """Warm-up length in optimizer steps, a share of the full horizon."""
        return steps_of(float(self.params["warmup_ratio"]), self.full_steps)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a running trial is; ``saved_step`` is the step of its checkpoint, 0 if it has none."""

    number: int
    purpose: Purpose
    seed: int
    step: int
    steps: int
    loss: float
    sharpness_ratio: float | None
    v_hat_staleness: float | None
    sharpness: float | None = None
    saved_step: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Episode:
    """One loss spike: its first step, the last step in it, its worst loss over the median before it.

    ``severity`` is the sum of log(loss / median) over the episode; ``steps_lost`` counts the steps until the loss is
    back at the median that preceded it.
    """

    start: int
    end: int
    worst_ratio: float
    severity: float
    steps_lost: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchLook:
    """One step's batch under parameters other than its own: ``loss_then`` is the loss it had at its step.

    ``gradient_norm`` is None where it was not computed.
    """

    step: int
    loss_then: float
    loss: float
    gradient_norm: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inspection:
    """What was looked up at a step where the loss stood out; all losses are of the parameters after that step.

    ``suspect`` is the batch that stood out, ``others`` those around it, ``precise_loss`` the suspect's loss computed in
    float64, ``lowest_precision`` the narrowest floating-point format in the suspect's forward pass. ``is_repeat``: the
    suspect was met before and is compared anew.
    """

    step: int
    suspect: BatchLook
    others: tuple[BatchLook, ...] = ()
    precise_loss: float | None = None
    lowest_precision: str | None = None
    largest_logits: tuple[float, ...] = ()
    has_finite_inputs: bool | None = None
    is_repeat: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """Why the loss spiked, or stopped being finite, at ``step``: a cause, what shows it, and the one change to make.

    ``cause`` is ``unexplained`` where nothing shows one; ``evidence`` then says what was missing.
    """

    step: int
    cause: str
    evidence: str
    remedy: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Alert:
    """A change of a training's level, or another spike while it has not recovered from the last.

    ``level`` it is on since ``step``, ``previous`` the one before; ``message`` says in a sentence what decided.
    ``loss``, ``sharpness_ratio`` (read at ``sharpness_ratio_step``) and ``v_hat_staleness`` are the newest known;
    ``diagnosis`` is given for a spike.
    """

    step: int
    level: Level
    previous: Level
    message: str
    loss: float
    sharpness_ratio: float | None = None
    sharpness_ratio_step: int | None = None
    v_hat_staleness: float | None = None
    diagnosis: Diagnosis | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrialResult:
    """What came of one trial.

    ``losses``, ``gradient_norms`` and ``learning_rates`` have one float64 per optimizer step; ``objective`` is None if
    not reached; ``spike_score`` is the worst of the run, 1 the limit; ``risk`` the forecast probability of a spike
    before the full horizon, ``expected_onset`` about when it would come; ``diagnoses`` has one entry for each episode,
    and one for a divergence outside of them; ``loss_floor`` the lower bound that the workload gave.
    """

    spec: TrialSpec
    status: Status
    reason: str
    losses: NDArray[np.float64]
    measurements: tuple[Measurement, ...] = ()
    episodes: tuple[Episode, ...] = ()
    spike_score: float = 0.0
    objective: float | None = None
    overhead: float = 0.0
    seconds: float = 0.0
    risk: float | None = None
    expected_onset: float | None = None
    traceback: str | None = None
    device: str = ""
    gradient_norms: NDArray[np.float64] = dataclasses.field(default_factory=lambda: np.zeros(0))
    learning_rates: NDArray[np.float64] = dataclasses.field(default_factory=lambda: np.zeros(0))
    inspections: tuple[Inspection, ...] = ()
    diagnoses: tuple[Diagnosis, ...] = ()
    loss_floor: float = 0.0

    @property
    def steps(self) -> int:
        """Optimizer steps done."""
        return int(self.losses.size)

    @property
    def is_spiky(self) -> bool:
        """Whether the loss spiked or stopped being finite."""
        return bool(self.episodes) or self.status == "diverged"

    @property
    def main_diagnosis(self) -> Diagnosis | None:
        """Why the run's worst spike came about: that of a divergence, else of the highest."""
        heights = {episode.start: episode.worst_ratio for episode in self.episodes}
        return max(self.diagnoses, key=lambda found: heights.get(found.step, math.inf), default=None)
