"""The corpus on disk: losses and readings of every run, compactly, in one compressed file.

In and out: ``Trace``. Losses and gradient norms are kept as their logarithms (of the loss above its floor), to 2e-4 and
0.005, as differences, which compress well; readings of any sign as float16, those that span many orders of magnitude as
the float16 of their logarithm.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stabletune.records import Episode, Measurement, TrialResult, TrialSpec, WorkloadReference
from stabletune.schedules import lr_factor

TRACES = Path(__file__).with_name("traces.npz")
FORMAT = 2
RESOLUTION = 2e-4
NORM_RESOLUTION = 0.005
_UNKNOWN = np.iinfo(np.int32).max
PLAIN = ("sharpness_ratio", "residual", "gradient_curvature_ratio", "alignment", "v_hat_decay")
LOGARITHMIC = ("v_hat_staleness", "update_rms", "gradient_norm", "oscillation_energy", "oscillation_refill")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trace:
    """One run: what it was, every loss, gradient norm and reading, its label from the losses in full precision."""

    family: str
    spec: TrialSpec
    loss_floor: float
    losses: NDArray[np.float64]
    gradient_norms: NDArray[np.float64]
    measurements: tuple[Measurement, ...]
    episodes: tuple[Episode, ...]
    diverged: bool

    @property
    def is_spiky(self) -> bool:
        return bool(self.episodes) or self.diverged

    @property
    def onset(self) -> int | None:
        """The first step of the first spike, or of the divergence; counted from 1."""
        if self.episodes:
            return self.episodes[0].start
        return int(self.losses.size) if self.diverged else None


def trace_of(family: str, result: TrialResult, loss_floor: float) -> Trace:
    """Keep what is judged of a run."""
    return Trace(
        family=family,
        spec=result.spec,
        loss_floor=loss_floor,
        losses=result.losses,
        gradient_norms=result.gradient_norms,
        measurements=result.measurements,
        episodes=result.episodes,
        diverged=result.status == "diverged",
    )


def write_traces(path: Path, traces: Sequence[Trace]) -> None:
    """Write all runs into one ``.npz``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    index = {"version": FORMAT, "runs": [_entry(trace) for trace in traces]}
    arrays: dict[str, NDArray[Any]] = {
        "index": np.frombuffer(json.dumps(index).encode(), dtype=np.uint8),
        "losses": np.concatenate([_encode(trace.losses - trace.loss_floor, RESOLUTION) for trace in traces]),
        "gradient_norms": np.concatenate([_encode(trace.gradient_norms, NORM_RESOLUTION) for trace in traces]),
        "steps": np.concatenate([np.diff([m.step for m in t.measurements], prepend=0) for t in traces]).astype(
            np.int16
        ),
    }
    for name in (*PLAIN, *LOGARITHMIC):
        columns = [_column(trace, name) for trace in traces]
        arrays[name] = np.concatenate(columns)
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)


def read_traces(path: Path) -> list[Trace]:
    """Read what ``write_traces`` wrote: losses within 1e-4 of themselves, readings within half a percent.

    Labels are those of the losses as trained: judged from the losses read here, 2 of 610 runs have other episodes.
    """
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    index = json.loads(arrays.pop("index").tobytes().decode())
    all_losses, all_norms = arrays.pop("losses"), arrays.pop("gradient_norms")
    traces, losses_at, readings_at = [], 0, 0
    for entry in index["runs"]:
        n_losses, n_readings = entry["n_losses"], entry["n_readings"]
        of_run = slice(losses_at, losses_at + n_losses)
        losses = _decode(all_losses[of_run], RESOLUTION) + entry["loss_floor"]
        norms = _decode(all_norms[of_run], NORM_RESOLUTION)
        rows = {name: column[readings_at : readings_at + n_readings] for name, column in arrays.items()}
        traces.append(_trace(entry, losses, norms, rows))
        losses_at, readings_at = losses_at + n_losses, readings_at + n_readings
    return traces


def _entry(trace: Trace) -> dict[str, Any]:
    spec = dataclasses.asdict(trace.spec)
    spec["workload"]["path"] = None  # where the corpus lies differs from machine to machine
    return {
        "family": trace.family,
        "spec": spec,
        "loss_floor": trace.loss_floor,
        "n_losses": int(trace.losses.size),
        "n_readings": len(trace.measurements),
        "episodes": [dataclasses.asdict(episode) for episode in trace.episodes],
        "diverged": trace.diverged,
    }


def _encode(values: NDArray[np.float64], resolution: float) -> NDArray[np.int32]:
    """Logarithms of positive values as differences of whole numbers; what is not positive or finite has a mark."""
    is_known = np.isfinite(values) & (values > 0)
    codes = np.round(np.log(np.where(is_known, values, 1.0)) / resolution).astype(np.int32)
    last_known = np.maximum.accumulate(np.where(is_known, np.arange(values.size), -1))
    kept = np.where(last_known >= 0, codes[np.maximum(last_known, 0)], 0)
    differences = np.diff(kept, prepend=np.int32(0)).astype(np.int32)
    differences[~is_known] = _UNKNOWN
    return differences


def _decode(differences: NDArray[np.int32], resolution: float) -> NDArray[np.float64]:
    is_known = differences != _UNKNOWN
    codes = np.cumsum(np.where(is_known, differences, 0), dtype=np.int64)
    return np.where(is_known, np.exp(codes * resolution), np.nan)


def _column(trace: Trace, name: str) -> NDArray[np.float16]:
    values = np.array([np.nan if (v := getattr(m, name)) is None else v for m in trace.measurements], dtype=np.float64)
    if name in LOGARITHMIC:
        values = np.where(
            values > 0, np.log10(np.where(values > 0, values, 1.0)), np.where(values == 0, -np.inf, np.nan)
        )
    return np.clip(values, -6e4, 6e4, where=np.isfinite(values), out=values).astype(np.float16)


def _trace(
    entry: dict[str, Any], losses: NDArray[np.float64], norms: NDArray[np.float64], rows: dict[str, NDArray[Any]]
) -> Trace:
    spec = TrialSpec(**entry["spec"] | {"workload": WorkloadReference(**entry["spec"]["workload"])})
    steps = np.cumsum(rows["steps"], dtype=np.int64).tolist()
    columns = {name: rows[name].astype(np.float64) for name in PLAIN}
    columns |= {name: 10.0 ** rows[name].astype(np.float64) for name in LOGARITHMIC}
    measurements = tuple(
        Measurement(
            step=step,
            loss=float(losses[step - 1]),
            lr=_lr_after(step, spec),
            **{name: None if np.isnan(column[i]) else float(column[i]) for name, column in columns.items()},
        )
        for i, step in enumerate(steps)
    )
    return Trace(
        family=entry["family"],
        spec=spec,
        loss_floor=entry["loss_floor"],
        losses=losses,
        gradient_norms=norms,
        measurements=measurements,
        episodes=tuple(Episode(**episode) for episode in entry["episodes"]),
        diverged=entry["diverged"],
    )


def _lr_after(step: int, spec: TrialSpec) -> float:
    """The rate that the optimizer holds once the schedule has followed the step, which is what a reading sees."""
    factor = lr_factor(spec.schedule, step, warmup_steps=spec.warmup_steps, full_steps=spec.full_steps)
    return float(spec.params["lr"]) * factor
