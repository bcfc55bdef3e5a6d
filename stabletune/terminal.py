"""What a person sees of a running search, a live table on a terminal or plain lines, and how they interrupt it."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from stabletune.hyperparameters import default_settings
from stabletune.judgement.rules import EDGE
from stabletune.records import Progress as TrialProgress
from stabletune.records import TrialResult, TrialSpec
from stabletune.study.listener import Listener
from stabletune.summaries import as_text, if_read, short

if TYPE_CHECKING:
    from stabletune.study.proof.outcome import StudyResult

ROWS_SHOWN = 14
SECONDS_BETWEEN_LINES = 1.0
SECONDS_TO_LEAVE = 10.0
_STYLES = {"completed": "green", "stopped": "yellow", "diverged": "red", "pruned": "dim", "failed": "bold red"}


@contextlib.contextmanager
def watching(*, quiet: bool, shows_signals: bool = False) -> Iterator[Listener]:
    """A listener that shows the search for as long as the context lasts.

    ``shows_signals``: where there is no terminal, a line with the signals about once a second, for a single run.
    """
    console = Console(stderr=True, highlight=False)
    with interruptible():
        if quiet:
            yield Listener()
        elif not console.is_terminal:
            yield SignalLines(console) if shows_signals else PlainLines(console)
        else:
            view = LiveView()
            with Live(view.render(), console=console, refresh_per_second=4, get_renderable=view.render):
                yield view


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C, SIGTERM and the end of the terminal interrupt, and give the process ten seconds to leave then.

    A second Ctrl-C would cut off what ends the workers. A signal that is ignored, as under nohup, or that the program
    handles in its own way, stays so.
    """
    came_at = -math.inf
    terminals = [stream for stream in (1, 2) if os.isatty(stream)]

    def interrupt(number: int, frame: object) -> None:
        nonlocal came_at
        for stream in terminals:
            if not os.isatty(stream):  # it is gone, and each word for it would raise another error
                _silence(stream)
        if time.monotonic() - came_at > SECONDS_TO_LEAVE:
            came_at = time.monotonic()
            raise KeyboardInterrupt

    is_main = threading.current_thread() is threading.main_thread()
    found = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)} if is_main else {}
    replaced = {n: handler for n, handler in found.items() if handler in (signal.SIG_DFL, signal.default_int_handler)}
    for number in replaced:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in replaced.items():  # nothing is left to interrupt where it has come
            signal.signal(number, handler if came_at == -math.inf else signal.SIG_IGN)


def _silence(stream: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream)
    os.close(nowhere)


class PlainLines(Listener):
    """One line for each trial that ends, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def on_note(self, sentence: str) -> None:
        """Say it."""
        self._say(sentence)

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
            f"sharpness_ratio {short(progress.sharpness_ratio, '.3f')}, "
            f"v_hat_staleness {short(progress.v_hat_staleness, '.3g')}{if_read(', sharpness ', progress.sharpness)}"
        )


class LiveView(Listener):
    """A table of the newest trials over a bar with the time left."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, int, int], tuple[str, ...]] = {}
        self._notes: list[str] = []
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("time left"),
            TimeRemainingColumn(),
        )  # fmt: skip
        self._task = self._bar.add_task("starting workers", total=None)

    def on_note(self, sentence: str) -> None:
        """Keep it above the table."""
        self._notes.append(escape(sentence))

    def render(self) -> Group:
        """The picture of this moment."""
        table = Table(box=None, pad_edge=False)
        for title in ("trial", "lr", "beta2", "step", "loss", f"sharpness ratio (edge {EDGE:g})", "status"):
            table.add_column(title, justify="left" if title in ("trial", "status") else "right", no_wrap=True)
        for row in list(self._rows.values())[-ROWS_SHOWN:]:
            status = row[-1]
            table.add_row(*row[:-1], f"[{_STYLES.get(status, 'cyan')}]{status}")
        return Group(*self._notes, table, self._bar)

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
            ratio = short(progress.sharpness_ratio, ".2f")
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
        row = (_name(spec), lr, beta2, str(step), short(loss, ".3g"), short(ratio, ".2f"), status)
        self._rows.pop(key := (spec.purpose, spec.number, spec.seed), None)
        self._rows[key] = row


def _name(spec: TrialSpec) -> str:
    if spec.purpose == "search":
        return f"{spec.number}"
    return f"{spec.number if spec.purpose == 'confirmation' else spec.purpose} seed {spec.seed}"


def _settings(spec: TrialSpec) -> str:
    """lr, beta2, whatever else is not torch's default, and the workload's arguments."""
    usual = default_settings()
    others = {name: value for name, value in spec.params.items() if usual.get(name) != value}
    shown = {name: spec.params[name] for name in ("lr", "beta2")} | others | dict(spec.workload_args)
    return ", ".join(f"{name} {as_text(value)}" for name, value in shown.items())
