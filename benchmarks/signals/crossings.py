"""Whether a budgeted monitor sees S pass 1 in time: full-batch runs at the edge, with every step traced beside it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from benchmarks.signals.runs import Run, diabetes, tanh
from benchmarks.signals.tables import percent, table
from stabletune import StabilityMonitor

N_STEPS, N_QUICK = 2000, 300
SEEDS = (0,)
OVERHEAD = 0.15
WITHIN = 5
# S wobbles about 1: excursions above it that lie at most MERGED steps apart are one, one that is shorter than SHORTEST
# steps is none, nor is one that S begins with
MERGED, SHORTEST = 5, 3
EARLY = 100
RUNS: tuple[Callable[..., Run], ...] = (tanh, diabetes)


@dataclasses.dataclass
class Count:
    """Crossings, how many were read in time or at all, and what that took."""

    n_crossings: int = 0
    n_in_time: int = 0
    n_ever: int = 0
    n_late: int = 0
    n_late_in_time: int = 0
    n_readings: int = 0
    booked: float = 0.0


def excursions(trace: dict[int, float]) -> list[tuple[int, int]]:
    """The first and last steps of the excursions above 1 that S entered from below."""
    found: list[list[int]] = []
    for step in sorted(step for step, value in trace.items() if value > 1):
        if found and step - found[-1][1] <= MERGED:
            found[-1][1] = step
        else:
            found.append([step, step])
    return [(first, last) for first, last in found if last - first + 1 >= SHORTEST and first > min(trace)]


def run(*, quick: bool) -> None:
    """Print one table, seeds added up."""
    n_steps, seeds = (N_QUICK if quick else N_STEPS), SEEDS
    rows, totals = [], {steps: Count() for steps in (n_steps, None)}
    for build in RUNS:
        for beta2 in (0.99, 0.999):
            counts = {steps: Count() for steps in (n_steps, None)}
            for seed in seeds:
                subject = build(beta2=beta2, seed=seed)
                _follow(subject, n_steps, counts)
            for steps, count in counts.items():
                rows.append(_row(subject.name, steps, count, len(seeds)))
                for field in dataclasses.fields(Count):
                    sums = getattr(totals[steps], field.name) + getattr(count, field.name)
                    setattr(totals[steps], field.name, sums)
    n_runs = 2 * len(RUNS) * len(seeds)
    rows += [_row("**all**", steps, count, n_runs) for steps, count in totals.items()]
    title = (
        f"Crossings of S = 1 seen at overhead {OVERHEAD}, {n_steps} steps, seeds {seeds} (excursions at most "
        f"{MERGED} steps apart are one, shorter than {SHORTEST} steps none)"
    )
    columns = ["run", "steps=", "crossings", f"S > 1 read within {WITHIN} steps", "goal", "read at all"]
    columns += [f"crossings after step {EARLY}", f"read within {WITHIN}", "readings of S per run", "booked"]
    table(title, columns, rows)


def _follow(subject: Run, n_steps: int, counts: dict[int | None, Count]) -> None:
    """Train once; the trace and the budgeted monitors read the same steps, and disturb nothing."""
    model, optimizer = subject.task.model, subject.optimizer
    tracer = StabilityMonitor(model, optimizer, every=1)
    monitors = {steps: StabilityMonitor(model, optimizer, overhead=OVERHEAD, steps=steps) for steps in counts}
    trace: dict[int, float] = {}
    seen: dict[int | None, dict[int, float]] = {steps: {} for steps in counts}
    for step in range(1, n_steps + 1):
        loss = subject.step()
        traced = tracer.step(loss, subject.probe_loss)
        if traced is not None and traced.sharpness_ratio is not None:
            trace[step] = traced.sharpness_ratio
        for steps, monitor in monitors.items():
            reading = monitor.step(loss, subject.probe_loss)
            if reading is not None and reading.sharpness_ratio is not None:
                seen[steps][step] = reading.sharpness_ratio
    for steps, count in counts.items():
        above = {step for step, value in seen[steps].items() if value > 1}
        for first, last in excursions(trace):
            count.n_crossings += 1
            is_in_time = any(first <= step <= first + WITHIN for step in above)
            count.n_in_time += is_in_time
            count.n_late += first > EARLY
            count.n_late_in_time += is_in_time and first > EARLY
            count.n_ever += any(first <= step <= last for step in above)
        count.n_readings += len(seen[steps])
        count.booked += monitors[steps].overhead


def _row(name: str, steps: int | None, count: Count, n_runs: int) -> list[object]:
    in_time, ever = _share(count.n_in_time, count.n_crossings), _share(count.n_ever, count.n_crossings)
    late = [count.n_late, _share(count.n_late_in_time, count.n_late)]
    per_run = f"{count.n_readings / n_runs:.0f}"
    booked = percent(count.booked / n_runs)
    return [name, steps or "unknown", count.n_crossings, in_time, ">= 90 %", ever, *late, per_run, booked]


def _share(part: int, whole: int) -> str:
    return percent(part / whole) if whole else "-"
