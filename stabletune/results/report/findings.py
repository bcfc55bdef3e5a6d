"""What a run folder says, read once: the rows and the few conclusions that several sections of the report share."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from stabletune.results.recommendation import Recommendation
from stabletune.results.store import RunFolder

Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Proof:
    """The proof runs of one trial's settings on fresh seeds."""

    candidate: int
    rows: Sequence[Row]

    @property
    def n_runs(self) -> int:
        """Runs that say something: whole ones and spiky ones, not those cut short because another had spiked."""
        return sum(row["status"] == "completed" or is_spiky(row) for row in self.rows)

    @property
    def n_spiky(self) -> int:
        """Runs with a spike or a divergence."""
        return sum(is_spiky(row) for row in self.rows)

    @property
    def may_still_hold(self) -> bool:
        """Whether every run so far is whole and clean."""
        return all(row["status"] == "completed" and not is_spiky(row) for row in self.rows)

    @property
    def objective(self) -> float | None:
        """Median of the objective over the runs that have one."""
        values = [row["objective"] for row in self.rows if is_finite(row["objective"])]
        return statistics.median(values) if values else None

    def largest(self, column: str) -> float | None:
        """The largest finite value of a column."""
        return max((row[column] for row in self.rows if is_finite(row[column])), default=None)


@dataclasses.dataclass(frozen=True)
class Findings:
    """A study as the report sees it; ``best`` is the recommended trial, or else the nearest thing to one."""

    folder: RunFolder
    config: Mapping[str, Any]
    trials: Sequence[Row]
    baseline: Proof
    candidates: Sequence[Proof]
    recommendation: Recommendation | None
    analysis: Mapping[str, Any]
    comparison: Mapping[str, Any]

    @property
    def best(self) -> Proof | None:
        """The recommended candidate's proof; without one, that of the candidate with the fewest spiky runs."""
        proofs = {proof.candidate: proof for proof in [self.baseline, *self.candidates] if proof.rows}
        if self.recommendation is not None:
            return proofs.get(_recommended_number(self.recommendation, self.trials), None)
        return min(
            self.candidates, key=lambda proof: (proof.n_spiky / max(1, proof.n_runs), proof.candidate), default=None
        )

    @property
    def paired_baseline(self) -> Proof:
        """The baseline's runs on the seeds of the best candidate; all of them before there are any."""
        if self.best is not None and self.best.candidate == self.baseline.candidate:
            return self.best
        seeds = {row["seed"] for row in self.best.rows} if self.best is not None else set()
        paired = [row for row in self.baseline.rows if row["seed"] in seeds]
        return Proof(self.baseline.candidate, paired or self.baseline.rows)

    @property
    def is_unfinished(self) -> bool:
        """Whether trials of the budget are still missing."""
        return len(self.trials) < int(self.budget("trials", 0))

    def budget(self, name: str, default: Any) -> Any:
        """One entry of the configuration's budget."""
        budget = self.config.get("budget")
        value = budget.get(name) if isinstance(budget, Mapping) else None
        return default if value is None else value

    def trial(self, number: int) -> Row | None:
        """The row of one trial."""
        return next((row for row in self.trials if row["trial"] == number), None)


def read_findings(folder: RunFolder) -> Findings:
    """Read every table of a run folder."""
    config, confirmations = folder.config(), folder.confirmations.rows()
    candidates: dict[int, list[Row]] = {}
    for row in confirmations:
        if row["purpose"] != "baseline":
            candidates.setdefault(row["candidate"], []).append(row)
    baseline = [row for row in confirmations if row["purpose"] == "baseline"]
    if 0 in candidates:  # its first run as the baseline is the first of its proof too
        candidates[0] = [*baseline[:1], *candidates[0]]
    return Findings(
        folder=folder,
        config=config,
        trials=folder.trials.rows(),
        baseline=Proof(0, baseline or candidates.get(0, [])),
        candidates=[Proof(number, rows) for number, rows in candidates.items()],
        recommendation=folder.recommendation(),
        analysis=folder.analysis(),
        comparison=folder.comparison(),
    )


def is_finite(value: Any) -> bool:
    """Whether ``value`` is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_spiky(row: Row) -> bool:
    """Whether a run's loss spiked or stopped being finite."""
    return bool(row["n_spikes"]) or row["status"] == "diverged"


def hyperparameters(rows: Sequence[Row]) -> list[str]:
    """The hyperparameter columns of ``trials.csv`` that differ between trials, in file order."""
    if not rows:
        return []
    columns = list(rows[0])
    between = columns[columns.index("steps") + 1 : columns.index("objective")]
    return [name for name in between if len({repr(row.get(name)) for row in rows}) > 1]


def flat_settings(recommendation: Recommendation) -> dict[str, Any]:
    """Recommended settings under the column names of ``trials.csv``."""
    settings = recommendation.settings
    schedule, arguments = settings.get("schedule") or {}, settings.get("workload_args") or {}
    flat = {f"workload_args.{name}": value for name, value in arguments.items()}
    return {**settings, **flat, "warmup_ratio": schedule.get("warmup_ratio", 0.0)}


def _recommended_number(recommendation: Recommendation, trials: Sequence[Row]) -> int:
    """The trial recommended: named in the provenance, else the last whose hyperparameters are the settings."""
    number = recommendation.provenance.get("trial")
    if isinstance(number, int):
        return number
    settings = flat_settings(recommendation)
    matching = [row["trial"] for row in trials if _matches(row, settings)]
    return int(matching[-1]) if matching else -1


def _matches(row: Row, settings: Mapping[str, Any]) -> bool:
    shared = set(row) & set(settings)
    return "lr" in shared and all(bool(row[name] == settings[name]) for name in shared)
