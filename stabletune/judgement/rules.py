"""Rules that turn measurements into a finding: pure functions of a trial's history, so that they can be replayed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from stabletune.records import Measurement

EDGE = 1.0
STALE = 10.0
SUSTAINED_STEPS = 8
SUSTAINED_READINGS = 3
YOUNGEST_VERDICT = 500


@dataclasses.dataclass(frozen=True)
class SustainedInstability:
    """Readings above the edge with a stale v_hat, one after the other."""

    first_step: int
    last_step: int
    n_readings: int
    lowest_sharpness_ratio: float
    lowest_staleness: float


def v_hat_age_needed(beta2: float) -> int:
    """Steps before v_hat has aged enough to be judged: max(500, 1 / (1 - beta2)).

    Until then bias correction, not memory, sets v_hat, and S may pass 1 without a spike.
    """
    return max(YOUNGEST_VERDICT, round(1.0 / (1.0 - beta2)))


def sustained_instability(measurements: Sequence[Measurement], beta2: float) -> SustainedInstability | None:
    """Find S > 1 sustained up to the last reading while v_hat has outlived its gradients.

    Holds when the last readings, at least 3 of them over at least 8 steps, all show ``sharpness_ratio`` > 1 and
    ``v_hat_staleness`` >= 10 at steps where v_hat had aged; younger readings are not looked at. A measurement without
    ``sharpness_ratio`` neither counts nor ends the run of readings. S > 1 alone is the normal resting place of
    full-batch training, and staleness alone is harmless on memorized data; segments of S > 1 that do spike last 12 to
    31 steps.

    Args:
        measurements: readings in order of step.
        beta2: of the second moment, in [0, 1).

    Returns:
        The finding, or None.

    Source: arXiv:2506.04805 for the mechanism; lengths and levels are stabletune's own measurements.
    """
    run: list[Measurement] = []
    youngest = v_hat_age_needed(beta2)
    for measurement in reversed(measurements):
        if measurement.sharpness_ratio is None:
            continue
        if measurement.step < youngest or not _is_unstable(measurement):
            break
        run.append(measurement)
    if len(run) < SUSTAINED_READINGS:
        return None
    first, last = run[-1].step, run[0].step
    if last - first < SUSTAINED_STEPS:
        return None
    return SustainedInstability(
        first_step=first,
        last_step=last,
        n_readings=len(run),
        lowest_sharpness_ratio=min(m.sharpness_ratio for m in run if m.sharpness_ratio is not None),
        lowest_staleness=min(m.v_hat_staleness for m in run if m.v_hat_staleness is not None),
    )


def _is_unstable(measurement: Measurement) -> bool:
    s, staleness = measurement.sharpness_ratio, measurement.v_hat_staleness
    return s is not None and s > EDGE and staleness is not None and staleness >= STALE
