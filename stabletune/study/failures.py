"""Trials that ended without a result of their own."""

from __future__ import annotations

import numpy as np

from stabletune.records import TrialResult, TrialSpec


def worker_died(spec: TrialSpec, steps: int) -> TrialResult:
    """The record of a trial whose process died, after Ray tried it again."""
    return TrialResult(
        spec=spec,
        status="failed",
        reason=f"after step {steps}: the worker process died twice; out of memory, or the workload ended it.",
        losses=np.zeros(0),
    )
