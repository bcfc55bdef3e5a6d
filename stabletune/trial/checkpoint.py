"""A long run's state on disk, so that what interrupts it costs a minute or so of it and not the whole.

In: the parts of a run and the path that its spec names. Out: a file that ``torch.load(weights_only=True)`` reads, and
from it a run that goes on as if nothing had happened, bit for bit where its batches and its model allow.
"""

from __future__ import annotations

import dataclasses
import os
import pickle
import time
from pathlib import Path
from typing import Any

import torch

from stabletune.records import FORMAT_VERSION, BatchLook, Inspection, Measurement, ShadowSharpness
from stabletune.trial.batch_stream import BatchStream, random_state, set_random_state
from stabletune.trial.trial import Trial

LARGEST_SHARE = 0.02
_RECORDS: list[Any] = [Measurement, ShadowSharpness, Inspection, BatchLook]
_SAME = ("number", "purpose", "seed", "steps", "full_steps", "params", "workload_args", "schedule")


class Checkpoint:
    """Saves a run now and then, less often where that would take more than a fiftieth of the time.

    Parameters, persistent buffers, the optimizer's state, schedule, loss scaling, random state, place in the batches,
    losses and measurements are kept. What the user's code keeps elsewhere is not, nor what the monitor and the look-out
    for causes remember from step to step: both begin anew, which costs two readings more. The training does not depend
    on them.

    Args:
        path: the file; its folder must exist.
        trial: whose past is kept.
        parts: by name, whatever has ``state_dict`` and ``load_state_dict``.
        batches: where the run is in them.
        seconds: between two times; 0 saves after every step, whatever it takes.
    """

    def __init__(self, path: str, trial: Trial, parts: dict[str, Any], batches: BatchStream, *, seconds: float) -> None:
        self._path = Path(path)
        self._trial, self._parts, self._batches = trial, parts, batches
        self._saved_at = time.monotonic()
        self._seconds_between = seconds

    def save_if_due(self) -> None:
        """Save if it is time; where that fails the run goes on, and says so."""
        began = time.monotonic()
        if began - self._saved_at < self._seconds_between:
            return
        try:
            self._save()
        except (OSError, RuntimeError) as error:  # torch raises the latter for a missing folder and for a full disk
            self._seconds_between = float("inf")
            self._trial.remark(f"without checkpoints since step {self._trial.history.step}: {_first_line(error)}")
        self._saved_at = time.monotonic()
        if self._seconds_between:
            self._seconds_between = max(self._seconds_between, (self._saved_at - began) / LARGEST_SHARE)

    def restore(self) -> bool:
        """Go on from the file; False if there is none, or none that this run can use, which is then remarked."""
        if not self._path.exists():
            return False
        try:
            with torch.serialization.safe_globals(_RECORDS):
                state = torch.load(self._path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            why = _first_line(error)
            self._trial.remark(f"started anew, because the checkpoint {self._path} cannot be read: {why}")
            return False
        if state["version"] != FORMAT_VERSION or state["spec"] != self._identity():
            self._trial.remark(f"started anew, because the checkpoint {self._path} is of another run")
            return False
        for name, part in self._parts.items():
            part.load_state_dict(state["parts"][name])
        self._batches.skip_to(state["position"])
        self._trial.go_on(**state["past"])
        self._trial.remark(f"gone on from step {self._trial.history.step} after an interruption")
        set_random_state(state["random"])
        return True

    def _save(self) -> None:
        history, monitor = self._trial.history, self._trial.monitor
        state = {
            "version": FORMAT_VERSION,
            "spec": self._identity(),
            "parts": {name: part.state_dict() for name, part in self._parts.items()},
            "position": self._batches.position,
            "past": {
                "losses": history.losses,
                "gradient_norms": history.gradient_norms,
                "learning_rates": history.learning_rates,
                "measurements": history.measurements,
                "inspections": history.inspections,
                "spent": monitor.spent if monitor is not None else 0.0,
            },
            "random": random_state(),
        }
        unfinished = self._path.with_suffix(f".{os.getpid()}.tmp")
        try:
            torch.save(state, unfinished)
            unfinished.replace(self._path)
        finally:
            unfinished.unlink(missing_ok=True)

    def _identity(self) -> dict[str, Any]:
        spec = dataclasses.asdict(self._trial.spec)
        return {name: spec[name] for name in _SAME}


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].rstrip(".")
