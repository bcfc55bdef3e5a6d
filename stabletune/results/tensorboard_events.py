"""One run's losses and signals as TensorBoard event files, beside the run's own (extra ``tensorboard``)."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from stabletune.records import TrialResult
from stabletune.results.report.downsampling import downsample

SIGNALS = ("sharpness_ratio", "v_hat_staleness", "v_hat_decay", "gradient_norm", "update_rms")
POINTS = 1000


def write_events(folder: Path, result: TrialResult) -> None:
    """Write the run into a folder of its own, in the place of an earlier attempt.

    Scalars: ``loss``, of a long run a thousand steps with every peak among them, ``lr``, and each signal where read.
    """
    shutil.rmtree(folder, ignore_errors=True)
    writer = EventFileWriter(str(folder))
    try:
        for tag, step, value in _scalars(result):
            if math.isfinite(value):
                summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
                writer.add_event(Event(step=step, summary=summary))
    finally:
        writer.close()


def _scalars(result: TrialResult) -> Iterator[tuple[str, int, float]]:
    for tag, values in (("loss", result.losses), ("lr", result.learning_rates)):
        steps = np.arange(1, values.size + 1, dtype=np.float64)
        for step, value in zip(*downsample(steps, values, points=POINTS), strict=True):
            yield tag, int(step), float(value)
    for measurement in result.measurements:
        for tag in SIGNALS:
            value = getattr(measurement, tag)
            if value is not None:
                yield tag, measurement.step, float(value)
