"""How right the sharpness ratio is along training, at three cadences, against ARPACK in float64."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

from benchmarks.signals.reference import Reference, point
from benchmarks.signals.runs import Run, crossing, diabetes, minibatch, tanh
from benchmarks.signals.tables import percent, quantiles, table
from stabletune import StabilityMonitor

N_STEPS, N_QUICK = 300, 50
CADENCES = (1, 10, 25)
NEAR_EDGE = 0.9
FALSE = 0.01
# the reference is taken at multiples of these steps; the transformer's costs a hundred products in float64, so that its
# probe is a quarter of a batch
OFTEN, SELDOM = (10, 25), (25,)

RUNS: tuple[tuple[Callable[[int], Run], tuple[int, ...]], ...] = (
    (lambda n: minibatch("MLP", 1e-3), OFTEN),
    (lambda n: minibatch("CNN", 1e-3), OFTEN),
    (lambda n: minibatch("transformer", 3e-3, n_probed=16), SELDOM),
    (lambda n: tanh(beta2=0.99, skipped=600), (5,)),
    (lambda n: diabetes(beta2=0.999, skipped=450), OFTEN),
    (crossing, (5,)),
)


@dataclasses.dataclass(frozen=True)
class Sample:
    """One reading beside the truth; ``error`` is relative, None without a reading."""

    truth: float
    error: float | None
    has_converged: bool


def run(*, quick: bool) -> None:
    """Print one table of all runs and cadences."""
    n_steps, rows = N_QUICK if quick else N_STEPS, []
    for build, multiples in RUNS:
        subject = build(n_steps)
        samples = _follow(subject, n_steps, multiples)
        rows += [_row(subject.name, every, samples[every]) for every in CADENCES]
    columns = [
        "run",
        "read every",
        "n",
        "median",
        "p90",
        "largest",
        "converged",
        f"of these over {percent(FALSE)} off",
        "n, S > .9",
        "median",
        "p90",
        "largest",
    ]
    title = (
        f"S along {n_steps} steps: its error against float64 ARPACK (goal: p90 within 1 %, all converged, none falsely)"
    )
    table(title, [*columns, "range of S"], rows)


def _follow(subject: Run, n_steps: int, multiples: tuple[int, ...]) -> dict[int, list[Sample]]:
    """Train once with a monitor for each cadence; they disturb neither the run nor each other."""
    for _ in range(subject.skipped):
        subject.step()
    monitors = {
        every: StabilityMonitor(subject.task.model, subject.optimizer, probe=subject.probe_loss, every=every)
        for every in CADENCES
    }
    samples: dict[int, list[Sample]] = {every: [] for every in CADENCES}
    reference = Reference()
    for step in range(1, n_steps + 1):
        loss = subject.step()
        readings = {every: monitor.step(loss) for every, monitor in monitors.items()}
        if all(step % multiple for multiple in multiples):
            continue
        truth = reference(point(subject.task, subject.optimizer))
        for every, reading in readings.items():
            if reading is not None:
                value = reading.sharpness_ratio
                error = None if value is None else abs(value / truth - 1)
                samples[every].append(Sample(truth, error, bool(reading.has_converged)))
    return samples


def _row(name: str, every: int, samples: list[Sample]) -> list[object]:
    read = [s for s in samples if s.error is not None]
    errors = [s.error for s in read if s.error is not None]
    near = [s.error for s in read if s.error is not None and s.truth > NEAR_EDGE]
    converged = percent(sum(s.has_converged for s in samples) / len(samples)) if samples else "-"
    n_false = sum(s.has_converged and s.error is not None and s.error > FALSE for s in samples)
    truths = [s.truth for s in samples]
    span = f"{min(truths):.2f}-{max(truths):.2f}" if truths else "-"
    both = itertools.chain([len(samples)], quantiles(errors), [converged, n_false, len(near)], quantiles(near))
    return [name, every, *both, span]
