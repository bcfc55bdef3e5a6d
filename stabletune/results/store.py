"""The run folder: where a study's files are, and the only code that writes them.

Flows in: the resolved configuration and each ``TrialResult``; flows out: rows, curves, analysis and recommendation, for
``--resume``, ``report``, ``export`` and ``compare``. One process writes a folder; a search is never overwritten.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stabletune.errors import OutputFolderError
from stabletune.records import FORMAT_VERSION, TrialResult, finite_or_none
from stabletune.results.atomic_files import replace_file
from stabletune.results.curves import Curves, read_curves, write_curves
from stabletune.results.recommendation import Recommendation
from stabletune.results.rows import (
    CONFIRMATION_COLUMNS,
    CONFIRMATION_KEY,
    TRIAL_COLUMNS,
    TRIAL_KEY,
    confirmation_row,
    trial_row,
)
from stabletune.results.table import Table
from stabletune.results.yaml_files import as_yaml, read_yaml_mapping

FILES = (
    "config.yaml",
    "study.journal",
    "trials.csv",
    "confirmations.csv",
    "trials",
    "checkpoints",
    "tensorboard",
    "analysis.json",
    "comparison.json",
    "running.json",
    "driver.json",
)
PRODUCTS = ("recommended.yaml", "report.html")


class RunFolder:
    """One study's folder. Naming it does no reading and no writing; ``create`` claims it.

    ``trials`` and ``confirmations`` are its tables: ``rows()`` reads, ``rewrite(rows)`` rebuilds. With ``tensorboard``
    each run is written as event files too.
    """

    def __init__(self, path: str | Path, *, tensorboard: bool = False) -> None:
        self.path = Path(path).expanduser().absolute()
        self._writes_events = tensorboard
        self.trials = Table(self.path / "trials.csv", TRIAL_KEY, TRIAL_COLUMNS)
        self.confirmations = Table(self.path / "confirmations.csv", CONFIRMATION_KEY, CONFIRMATION_COLUMNS)
        self.journal_path = self.path / "study.journal"
        self.recommendation_path = self.path / "recommended.yaml"
        self.report_path = self.path / "report.html"

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """Hold the folder against other processes of this machine, for the time of a search or a comparison.

        Raises:
            OutputFolderError: another one holds it.
        """
        lock = os.open(self.path, os.O_RDONLY)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise OutputFolderError(
                    f"{self.path}: must be used by one process at a time, but another one works there. "
                    "Wait for it, or stop it."
                ) from error
            yield
        finally:
            os.close(lock)

    def exists(self) -> bool:
        """Whether a search has been started here."""
        return (self.path / "config.yaml").is_file() and (self.path / "trials").is_dir()

    @property
    def is_untouched(self) -> bool:
        """Whether the search that was started here has left no run yet: a kill may have come before its study."""
        return not any((self.path / "trials").iterdir())

    def make(self) -> None:
        """Make the folder itself, so that it can be claimed.

        Raises:
            OutputFolderError: it cannot be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._not_a_place(error) from error

    def refuse_if_taken(self) -> None:
        """Raise OutputFolderError if the folder already holds a search, or a file that one would overwrite."""
        taken = [name for name in FILES + PRODUCTS if (self.path / name).exists()]
        if taken == ["trials"] and (self.path / "trials").is_dir() and self.is_untouched:
            taken = []  # a kill came before config.yaml
        if taken:
            what = "another search" if self.exists() else f"{taken[0]}, which a search would overwrite"
            remedy = "Add --resume to go on with it, or name" if self.exists() else "Name"
            raise OutputFolderError(
                f"output: the folder must not hold a search yet, but {self.path} holds {what}. "
                f"{remedy} another folder with --output."
            )

    def create(self, config: Mapping[str, Any]) -> None:
        """Begin a new search here by its resolved configuration.

        Raises:
            OutputFolderError: the folder already holds a search, or a file that one would overwrite.
        """
        self.refuse_if_taken()
        try:
            (self.path / "trials").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._not_a_place(error) from error
        self.write_config(config)

    def _not_a_place(self, error: OSError) -> OutputFolderError:
        said = os.strerror(errno.ENOTDIR if self.path.is_file() else error.errno or 0)
        return OutputFolderError(
            f"output: {self.path} must be a folder to write in, but got {said.lower()}. "
            "Name another folder with --output."
        )

    def discard(self) -> None:
        """Take back what ``create`` claimed: for a search whose very first trial cannot run. Other files stay."""
        for name in FILES + PRODUCTS:
            path = self.path / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        if self.path.is_dir() and not any(self.path.iterdir()):
            self.path.rmdir()

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Replace ``config.yaml``; on resume only its budget differs."""
        replace_file(self.path / "config.yaml", as_yaml({"version": FORMAT_VERSION, **config}))

    def config(self) -> dict[str, Any]:
        """The resolved configuration that was written.

        Raises:
            OutputFolderError: no search was started here, or its ``config.yaml`` cannot be read.
        """
        if not self.exists():
            raise OutputFolderError(
                f"{self.path}: must be the output folder of a search, but got one without config.yaml and trials/. "
                "Name the folder that `stabletune search` wrote."
            )
        return read_yaml_mapping(self.path / "config.yaml")

    def record(self, result: TrialResult, *, row: Mapping[str, Any] | None = None) -> None:
        """Write a run's curves, then its row: in ``trials.csv``, or in ``confirmations.csv`` for a proof run.

        ``row`` takes the place of a trial's own, for a trial of several runs.
        """
        spec = result.spec
        if self._writes_events:
            self._write_events(result)
        if spec.purpose == "search":
            write_curves(self.run_path(spec.number), result)
            self.trials.write(trial_row(result) if row is None else row)
        else:
            write_curves(self.run_path(spec.number, seed=spec.seed), result)
            self.confirmations.write(confirmation_row(result))

    def _write_events(self, result: TrialResult) -> None:
        from stabletune.results.tensorboard_events import write_events

        spec = result.spec
        run = (
            f"trial-{spec.number:04d}" if spec.purpose == "search" else f"{spec.purpose}-{spec.number:04d}-{spec.seed}"
        )
        write_events(self.path / "tensorboard" / run, result)

    def record_seed(self, result: TrialResult) -> None:
        """Write the curves of one run of a trial that has several, beside the trial's own."""
        write_curves(self.run_path(result.spec.number, seed=result.spec.seed), result)

    def run_path(self, number: int, *, seed: int | None = None) -> Path:
        """The folder of trial ``number``, or of its proof run with ``seed``."""
        trial = self.path / "trials" / f"{number:04d}"
        return trial if seed is None else trial / f"seed-{seed:04d}"

    def checkpoint_path(self, number: int, purpose: str, seed: int, full_steps: int) -> Path:
        """Where a proof run over ``full_steps`` is saved while it runs; the folder is made for it."""
        folder = self.path / "checkpoints"
        folder.mkdir(exist_ok=True)
        return folder / f"{number:04d}-{purpose}-{full_steps}-{seed}.pt"

    def interrupted_seeds(self, number: int, purpose: str, full_steps: int) -> list[int]:
        """The seeds of such runs that have a checkpoint."""
        found = (self.path / "checkpoints").glob(f"{number:04d}-{purpose}-{full_steps}-*.pt")
        return sorted(int(path.stem.rpartition("-")[2]) for path in found)

    def forget_checkpoints(self) -> None:
        """Delete the checkpoints of a proof that is over."""
        shutil.rmtree(self.path / "checkpoints", ignore_errors=True)

    def curves(self, number: int, *, seed: int | None = None) -> Curves | None:
        """The history of a trial, or of its proof run with ``seed``; None while there is none."""
        return read_curves(self.run_path(number, seed=seed))

    def write_analysis(self, analysis: Mapping[str, Any]) -> None:
        """Keep what only ``study`` can compute (the ending, the stability map, the front) for the report."""
        self._write_json("analysis.json", analysis)

    def analysis(self) -> dict[str, Any]:
        """What ``write_analysis`` kept; empty when nothing was."""
        return self._read_json("analysis.json")

    def write_comparison(self, comparison: Mapping[str, Any]) -> None:
        """Keep what ``stabletune compare`` found last."""
        self._write_json("comparison.json", comparison)

    def forget_comparison(self) -> None:
        """Delete what compared a recommendation that no longer stands."""
        (self.path / "comparison.json").unlink(missing_ok=True)

    def comparison(self) -> dict[str, Any]:
        """What ``write_comparison`` kept; empty when nothing was."""
        return self._read_json("comparison.json")

    def write_running(self, running: Mapping[str, Any]) -> None:
        """Keep which runs are under way."""
        self._write_json("running.json", running)

    def forget_running(self) -> None:
        """Delete it: none is."""
        (self.path / "running.json").unlink(missing_ok=True)

    def running(self) -> dict[str, Any]:
        """What ``write_running`` kept; empty when nothing was."""
        return self._read_json("running.json")

    @property
    def running_path(self) -> Path:
        """Where that is; its time says when a run was heard of last."""
        return self.path / "running.json"

    def driver(self) -> str:
        """The name of the driver that works here among those that share its study: the same after a crash."""
        name = self._read_json("driver.json").get("driver") or uuid.uuid4().hex
        self._write_json("driver.json", {"driver": name})
        return str(name)

    def recommendation(self) -> Recommendation | None:
        """The recommendation, or None when nothing has been proven."""
        return Recommendation.load(self.recommendation_path) if self.recommendation_path.exists() else None

    def proven_recommendation(self) -> Recommendation:
        """The recommendation of a search that ended with one.

        Raises:
            OutputFolderError: this is no search's folder, or nothing was recommended.
        """
        self.config()
        recommendation = self.recommendation()
        if recommendation is None:
            raise OutputFolderError(
                f"{self.path}: must hold recommended.yaml, but nothing was recommended there. "
                "Finish the search with --resume first."
            )
        return recommendation

    def _write_json(self, name: str, content: Mapping[str, Any]) -> None:
        whole = {**finite_or_none(content), "version": FORMAT_VERSION}
        replace_file(self.path / name, json.dumps(whole, indent=2, allow_nan=False) + "\n")

    def _read_json(self, name: str) -> dict[str, Any]:
        path = self.path / name
        if not path.exists():
            return {}
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError, OSError) as error:
            raise OutputFolderError(f"{path}: must be JSON, but cannot be read ({error}). Delete it.") from error
        if not isinstance(content, dict):
            raise OutputFolderError(f"{path}: must be a JSON object, but got {type(content).__name__}. Delete it.")
        return content
