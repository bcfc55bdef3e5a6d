"""A long run's state on disk, so that what interrupts it costs the steps since and not the whole.

In: the parts of a run and the path that its spec names. Out: a file that ``torch.load(weights_only=True)`` reads, and
from it a run that goes on as if nothing had happened, bit for bit where its batches and its model allow.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stabletune.records import FORMAT_VERSION, BatchLook, Inspection, Measurement, ShadowSharpness
from stabletune.trial.batch_stream import BatchStream, random_state, set_random_state
from stabletune.trial.trial import Trial

LARGEST_SHARE = 0.02
_RECORDS: list[Any] = [Measurement, ShadowSharpness, Inspection, BatchLook]
_SAME = ("number", "purpose", "seed", "steps", "full_steps", "params", "workload", "workload_args", "schedule")


class UnusableCheckpoint(Exception):
    """A checkpoint from which a run cannot go on: it has to be built, and to begin, anew."""


class Checkpoint:
    """Saves a run now and then, less often where that would take more than a fiftieth of the time.

    Parameters, persistent buffers, the optimizer's state, schedule, loss scaling, random state, place in the batches,
    losses and measurements are kept. What the user's code keeps elsewhere is not, nor what the monitor and the look-out
    for causes remember from step to step: both begin anew, which costs two readings more, and so do shadow values. The
    training does not depend on them.

    Cost: of saving, one copy of model and optimizer on disk; of going on, drawing all batches so far again.

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
        self._seconds = self._wait = seconds
        self._has_failed = False

    def save_if_due(self) -> None:
        """Save if it is time; where that fails the run goes on, and says so once."""
        began = time.monotonic()
        if began - self._saved_at < self._wait:
            return
        try:
            self._save()
        except Exception as error:  # whatever the user's parts raise where they are saved
            if not self._has_failed:
                self._has_failed = True
                self._trial.remark(f"not saved at step {self._trial.history.step} ({type(error).__name__})")
        self._saved_at = time.monotonic()
        took = self._saved_at - began
        self._wait = max(self._seconds, took / LARGEST_SHARE) if self._seconds else 0.0

    def restore(self) -> bool:
        """Go on from the file; False if there is none.

        Raises:
            UnusableCheckpoint: it cannot be read, is of another run, or does not fit; parts may be half loaded then.
        """
        if not self._path.exists():
            return False
        try:
            with torch.serialization.safe_globals(_RECORDS):
                state = torch.load(self._path, map_location="cpu", weights_only=True)
            if (state["version"], state["spec"]) != (FORMAT_VERSION, self._identity()):
                raise ValueError("it is of another run")
            for name, part in self._parts.items():
                part.load_state_dict(state["parts"][name])
            self._batches.skip_to(state["position"])
            self._trial.go_on(**state["past"])
            set_random_state(state["random"])
        except Exception as error:  # of a file that anything may have happened to, and of the user's parts and batches
            why = str(error) if isinstance(error, ValueError) else type(error).__name__
            raise UnusableCheckpoint(f"{self._path} cannot be used: {why}") from error
        self._trial.remark(f"gone on from step {self._trial.history.step} after an interruption")
        if self._trial.spec.shadow_beta2:
            self._trial.remark("shadow values begin anew there")
        return True

    def _save(self) -> None:
        history, monitor = self._trial.history, self._trial.monitor
        state = {
            "version": FORMAT_VERSION,
            "spec": self._identity(),
            "parts": {name: _plain(part.state_dict()) for name, part in self._parts.items()},
            "position": self._batches.position,
            "past": {
                "losses": list(history.losses),
                "gradient_norms": list(history.gradient_norms),
                "learning_rates": list(history.learning_rates),
                "measurements": history.measurements,
                "inspections": history.inspections,
                "spent": monitor.spent if monitor is not None else 0.0,
                "remarks": self._trial.notes,
            },
            "random": random_state(),
        }
        unfinished = self._path.with_suffix(f".{os.getpid()}.tmp")
        try:
            with unfinished.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(self._path)
            self._trial.saved_step = history.step
        finally:
            unfinished.unlink(missing_ok=True)

    def _identity(self) -> str:
        """What makes a run this one, as text, in which nan equals itself."""
        spec = dataclasses.asdict(self._trial.spec)
        return json.dumps({name: spec[name] for name in _SAME}, sort_keys=True, default=repr)


def _plain(value: Any) -> Any:
    """``value`` with numpy's scalars as Python's, which is what ``weights_only`` reads."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(entry) for entry in value)
    return value.item() if isinstance(value, np.generic) else value
