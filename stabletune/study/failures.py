"""Trials that ended without a result of their own."""

from __future__ import annotations

import numpy as np

from stabletune.records import TrialResult, TrialSpec


def worker_died(spec: TrialSpec, steps: int) -> TrialResult:
    """The record of a trial whose process died, after Ray tried it again."""
    return ended(
        spec, f"after step {steps}: the worker process died three times; out of memory, hung, or ended by the workload."
    )


def ended(spec: TrialSpec, reason: str) -> TrialResult:
    """The record of a trial whose process has ended, for a known reason."""
    return TrialResult(spec=spec, status="failed", reason=reason, losses=np.zeros(0))
