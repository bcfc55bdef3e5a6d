"""What a person sees of a search: a live table on a terminal, plain lines elsewhere, and the closing summary.

Everything live goes to standard error; the summaries are strings that ``cli`` prints.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from stabletune.hyperparameters import default_settings
from stabletune.judgement.rules import EDGE
from stabletune.judgement.spikes import olmo_spike_score
from stabletune.records import Diagnosis, TrialResult, TrialSpec
from stabletune.records import Progress as TrialProgress
from stabletune.study.listener import Listener

if TYPE_CHECKING:
    from stabletune.study.compare import Comparison
    from stabletune.study.proof.outcome import StudyResult

ROWS_SHOWN = 14
SECONDS_BETWEEN_LINES = 1.0
SPIKES_SHOWN = 3
BEFORE_A_SPIKE = 100
_STYLES = {"completed": "green", "stopped": "yellow", "diverged": "red", "pruned": "dim", "failed": "bold red"}


@contextlib.contextmanager
def watching(*, quiet: bool, shows_signals: bool = False) -> Iterator[Listener]:
    """A listener that shows the search for as long as the context lasts.

    ``shows_signals``: where there is no terminal, a line with the signals about once a second, for a single run.
    """
    console = Console(stderr=True, highlight=False)
    if quiet:
        yield Listener()
    elif not console.is_terminal:
        yield SignalLines(console) if shows_signals else PlainLines(console)
    else:
        view = LiveView()
        with Live(view.render(), console=console, refresh_per_second=4, get_renderable=view.render):
            yield view


class PlainLines(Listener):
    """One line for each trial that ends, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def on_search(self, n_trials: int, n_finished: int) -> None:
        """Announce the search."""
        done = f", {n_finished} of them done before" if n_finished else ""
        self._say(f"search: {n_trials} trials{done}")

    def on_proof(self, n_candidates: int, n_runs_expected: int) -> None:
        """Announce the proof."""
        self._say(f"proof: {n_candidates} trials looked clean")

    def on_progress(self, progress: TrialProgress) -> None:
        """Nothing: a line for each report would be noise in a log."""

    def on_result(self, result: TrialResult) -> None:
        """One line with the settings, the outcome and the reason."""
        self._say(f"{_name(result.spec)}: {_settings(result.spec)}: {result.status}: {result.reason}")

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False, soft_wrap=True)


class SignalLines(PlainLines):
    """Besides, the loss and the signals of the running trial, at most once in ``seconds``."""

    def __init__(self, console: Console, seconds: float = SECONDS_BETWEEN_LINES) -> None:
        super().__init__(console)
        self._seconds, self._said_at = seconds, -math.inf

    def on_progress(self, progress: TrialProgress) -> None:
        """One line, unless the last one is too young."""
        now = time.monotonic()
        if now - self._said_at < self._seconds:
            return
        self._said_at = now
        self._say(
            f"step {progress.step} of {progress.steps}: loss {progress.loss:.4g}, "
            f"sharpness_ratio {_short(progress.sharpness_ratio, '.3f')}, "
            f"v_hat_staleness {_short(progress.v_hat_staleness, '.3g')}{_if_read(', sharpness ', progress.sharpness)}"
        )


class LiveView(Listener):
    """A table of the newest trials over a bar with the time left."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, int, int], tuple[str, ...]] = {}
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("time left"),
            TimeRemainingColumn(),
        )  # fmt: skip
        self._task = self._bar.add_task("starting workers", total=None)

    def render(self) -> Group:
        """The picture of this moment."""
        table = Table(box=None, pad_edge=False)
        for title in ("trial", "lr", "beta2", "step", "loss", f"sharpness ratio (edge {EDGE:g})", "status"):
            table.add_column(title, justify="left" if title in ("trial", "status") else "right", no_wrap=True)
        for row in list(self._rows.values())[-ROWS_SHOWN:]:
            status = row[-1]
            table.add_row(*row[:-1], f"[{_STYLES.get(status, 'cyan')}]{status}")
        return Group(table, self._bar)

    def on_search(self, n_trials: int, n_finished: int) -> None:
        """Set the bar to the trials of the search."""
        self._bar.reset(self._task, description="search", total=n_trials, completed=n_finished)

    def on_proof(self, n_candidates: int, n_runs_expected: int) -> None:
        """Begin a bar of the expected runs; it grows should the proof take more."""
        self._bar.reset(self._task, description=f"proof ({n_candidates} candidates)", total=n_runs_expected)

    def on_comparison(self, n_runs: int) -> None:
        """Set the bar to the runs of the comparison."""
        self._bar.reset(self._task, description="comparison", total=n_runs)

    def on_start(self, spec: TrialSpec) -> None:
        """Add a row."""
        self._set(spec, 0, None, None, "running")

    def on_progress(self, progress: TrialProgress) -> None:
        """Move the row's numbers."""
        key = (progress.purpose, progress.number, progress.seed)
        if key in self._rows:
            name, lr, beta2, *_ = self._rows[key]
            ratio = _short(progress.sharpness_ratio, ".2f")
            self._rows[key] = (name, lr, beta2, str(progress.step), f"{progress.loss:.3g}", ratio, "running")

    def on_result(self, result: TrialResult) -> None:
        """Close the row and move the bar."""
        ratios = [m.sharpness_ratio for m in result.measurements if m.sharpness_ratio is not None]
        loss = float(result.losses[-1]) if result.steps else None
        self._set(result.spec, result.steps, loss, max(ratios, default=None), result.status)
        self._bar.advance(self._task)
        task = self._bar.tasks[0]
        if task.total is not None and task.completed >= task.total and result.spec.purpose != "search":
            self._bar.update(self._task, total=task.completed + 1)

    def on_end(self, result: StudyResult) -> None:
        """Fill the bar: the proof may have taken fewer runs than expected."""
        self._bar.update(self._task, total=self._bar.tasks[0].completed)

    def on_abandoned(self, spec: TrialSpec, steps: int) -> None:
        """Close the row of a run that is no longer needed."""
        self._set(spec, steps, None, None, "not needed")

    def _set(self, spec: TrialSpec, step: int, loss: float | None, ratio: float | None, status: str) -> None:
        lr, beta2 = f"{spec.params['lr']:.3g}", f"{spec.params['beta2']:.4g}"
        row = (_name(spec), lr, beta2, str(step), _short(loss, ".3g"), _short(ratio, ".2f"), status)
        self._rows.pop(key := (spec.purpose, spec.number, spec.seed), None)
        self._rows[key] = row


def study_summary(result: StudyResult) -> str:
    """What a search ends with: settings, baseline against recommended, where the files are."""
    recommendation = result.recommendation
    if recommendation is None:
        return f"{result.message}\nFiles: {result.folder}"
    evidence = recommendation.evidence
    objective, n = evidence["objective"], evidence["confirm_seeds"]
    in_force = {k: v for k, v in recommendation.settings.items() if v is not None and v is not False}
    settings = ", ".join(f"{name} {_value(value)}" for name, value in in_force.items())
    upper = evidence["spiky_run_rate_upper_95"]
    return "\n".join(
        (
            f"Recommended: {settings}",
            f"{'':14}{'recommended':>14}{'baseline':>14}",
            f"{'spiky runs':14}{_of(evidence['spiky_runs'], n):>14}{_of(evidence['baseline_spiky_runs'], n):>14}",
            f"{objective['metric']:14}{objective['recommended']:>14.4g}{_short(objective['baseline'], '.4g'):>14}"
            f"   ratio {_short(objective['ratio'], '.3g')}",
            f"Proven over {evidence['confirmed_steps']} steps on {n} fresh seeds; {evidence['candidates_tried']} "
            f"candidates tried; the rate of spiky runs is below {upper:.0%} (exact 95 % bound).",
            f"Training steps spent: {evidence['training_steps_spent']}",
            f"Files: {result.folder} (recommended.yaml, report.html, trials.csv)",
        )
    )


def comparison_summary(comparison: Comparison) -> str:
    """What ``stabletune compare`` ends with."""
    arms, n = (comparison.recommended, comparison.baseline), len(comparison.baseline.results)
    head = "".join(f"{name:>14}" for name in ("recommended", "baseline"))
    lines = [
        f"{comparison.steps} steps, {n} fresh seeds",
        f"{'':16}{head}",
        f"{'spiky runs':16}" + "".join(f"{_of(arm.n_spiky, n):>14}" for arm in arms),
        f"{'rate below':16}" + "".join(f"{arm.spiky_rate_upper:>14.0%}" for arm in arms) + "   exact 95 % bound",
        f"{comparison.metric:16}" + "".join(f"{arm.objective:>14.4g}" for arm in arms) + "   median over seeds",
    ]
    interval = comparison.ratio_interval()
    if interval is not None:
        lines.append("ratio {:.3g}, 95 % interval {:.3g} to {:.3g} over paired seeds".format(*interval))
    return "\n".join(lines)


def trial_summary(result: TrialResult) -> str:
    """What ``stabletune trial`` ends with: readings first, the verdict last, where a terminal shows it."""
    lines = [*_readings(result), f"{result.status}: {result.reason}"]
    if result.objective is not None:
        lines.append(f"{result.spec.metric}: {result.objective:.6g}")
    lines += _forecast(result)
    why = {found.step: found for found in result.diagnoses}
    worst = max(result.episodes, key=lambda e: e.worst_ratio, default=None)
    for e in (e for n, e in enumerate(result.episodes) if n < SPIKES_SHOWN or e is worst):
        lines.append(
            f"spike at step {e.start}: {e.worst_ratio:.3g} times its median, severity {e.severity:.3g}, "
            f"{e.steps_lost} steps lost"
        )
        lines += _diagnosis(why.pop(e.start, None))
    if len(result.episodes) > SPIKES_SHOWN:
        starts = {e.start for e in result.episodes}
        counts = Counter(found.cause for found in result.diagnoses if found.step in starts).most_common()
        causes = ", ".join(f"{cause} {n}" for cause, n in counts)
        lines.append(f"{len(result.episodes)} spikes in all, each in diagnoses.jsonl with --output: {causes}")
    lines += _diagnosis(why.get(result.steps) if result.status == "diverged" else None)
    finite = [loss for loss in result.losses.tolist() if math.isfinite(loss)]
    score = olmo_spike_score(finite)
    lines.append(f"OLMo spike score (share of steps 7 deviations above the last 1,000 losses): {score:.3%}")
    return "\n".join(lines)


def _readings(result: TrialResult) -> list[str]:
    """Some twenty readings of S over the run, and the highest in the hundred steps before each spike."""
    readings = [m for m in result.measurements if m.sharpness_ratio is not None]
    shown = {m.step for m in readings[:: max(1, len(readings) // 20)]}
    for e in result.episodes:
        before = [m for m in readings if e.start - BEFORE_A_SPIKE <= m.step <= e.start]
        shown |= {m.step for m in before if m.sharpness_ratio == max(r.sharpness_ratio or 0.0 for r in before)}
    return [
        f"step {m.step:>6}  loss {m.loss:<11.4g} sharpness_ratio {m.sharpness_ratio:<8.3f} "
        f"v_hat_staleness {_short(m.v_hat_staleness, '.3g')}{_if_read(' sharpness ', m.sharpness)}"
        for m in readings
        if m.step in shown
    ]


def _forecast(result: TrialResult) -> list[str]:
    """For a clean run that is shorter than the horizon: whether it would spike later, and about when."""
    if (
        result.risk is None
        or result.expected_onset is None
        or result.is_spiky
        or result.steps >= result.spec.full_steps
    ):
        return []
    when = f", if so about step {result.expected_onset:.0f}" if result.expected_onset < result.spec.full_steps else ""
    return [
        f"forecast: risk {result.risk:.2f} of a spike before step {result.spec.full_steps}{when}; compare it between "
        "settings, workloads differ in how many of the same risk spike"
    ]


def _diagnosis(found: Diagnosis | None) -> list[str]:
    """Cause, evidence and the one change."""
    return [] if found is None else [f"  cause: {found.cause}: {found.evidence}", f"  change: {found.remedy}"]


def _name(spec: TrialSpec) -> str:
    if spec.purpose == "search":
        return f"{spec.number}"
    return f"{spec.number if spec.purpose == 'confirmation' else spec.purpose} seed {spec.seed}"


def _settings(spec: TrialSpec) -> str:
    """lr, beta2, whatever else is not torch's default, and the workload's arguments."""
    usual = default_settings()
    others = {name: value for name, value in spec.params.items() if usual.get(name) != value}
    shown = {name: spec.params[name] for name in ("lr", "beta2")} | others | dict(spec.workload_args)
    return ", ".join(f"{name} {_value(value)}" for name, value in shown.items())


def _short(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _if_read(title: str, value: float | None) -> str:
    return "" if value is None else f"{title}{value:.3g}"


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        named = [_value(v) if k == "name" else f"{k} {_value(v)}" for k, v in value.items()]
        return " ".join(named)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _of(part: int, whole: int) -> str:
    return f"{part} of {whole}"
