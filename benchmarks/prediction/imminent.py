"""How well rules foresee a spike within the next 50 steps, on the families they were chosen on and on the others."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

import numpy as np
from scipy.stats import binomtest

from benchmarks.prediction.naive_rules import NAIVE_RULES
from benchmarks.prediction.replay import Replay, Score, level_for
from stabletune.judgement.history import History
from stabletune.judgement.rules import imminent_spike

OURS = "predicted height while the gradient grows"
FALSE_STOPS = 0.02
EDGE = 0.9


def predicted_score(history: History) -> float:
    """The score of the spike that the search's rule foresees."""
    finding = imminent_spike(history)
    return -math.inf if finding is None else finding.predicted_score


RULES: dict[str, Score] = {OURS: predicted_score} | {name: rule for name, (rule, _) in NAIVE_RULES.items()}


@dataclasses.dataclass(frozen=True)
class Row:
    """What one rule does at one level on some runs."""

    rule: str
    level: float
    n_healthy: int
    n_stopped: int
    n_at_edge: int
    n_stopped_at_edge: int
    n_spiking: int
    n_foreseen: int
    n_caught: int
    leads: tuple[int, ...]

    def __str__(self) -> str:
        precision = self.n_caught / max(1, self.n_caught + self.n_stopped)
        lead = f"{np.median(self.leads):.0f}" if self.leads else "-"
        early = sum(lead >= 10 for lead in self.leads)
        return (
            f"| {self.rule} | {self.level:.3g} | {share(self.n_foreseen, self.n_spiking)} | "
            f"{share(self.n_caught, self.n_spiking)} | {share(self.n_stopped, self.n_healthy)} | "
            f"{share(self.n_stopped_at_edge, self.n_at_edge)} | {precision:.2f} | {lead} | "
            f"{early / max(1, self.n_spiking):.2f} |"
        )


HEADER = (
    "| rule | level | recall: alarm in the 50 steps before | alarm at any time before | healthy runs stopped | "
    "of those at the edge | precision | median lead | recall with a lead of 10 |\n|---|---|---|---|---|---|---|---|---|"
)


def judge(replays: Sequence[Replay], name: str, level: float) -> Row:
    """Count what an alarm above ``level`` does: it stops a healthy run, or foresees a spike."""
    healthy = [r for r in replays if not r.trace.is_spiky]
    spiking = [r for r in replays if r.trace.is_spiky]
    at_edge = [r for r in healthy if is_at_edge(r)]
    leads = [r.lead(name, level) for r in spiking]
    return Row(
        rule=name,
        level=level,
        n_healthy=len(healthy),
        n_stopped=sum(r.alarms(name, level).size > 0 for r in healthy),
        n_at_edge=len(at_edge),
        n_stopped_at_edge=sum(r.alarms(name, level).size > 0 for r in at_edge),
        n_spiking=len(spiking),
        n_foreseen=sum(r.is_foreseen(name, level) for r in spiking),
        n_caught=sum(r.alarms(name, level).size > 0 for r in spiking),
        leads=tuple(lead for lead in leads if lead is not None),
    )


def is_at_edge(run: Replay) -> bool:
    """Whether S was read at 0.9 or more in the second half."""
    half = run.trace.losses.size / 2
    return any((m.sharpness_ratio or 0.0) >= EDGE for m in run.trace.measurements if m.step > half)


def tables(tuning: Sequence[Replay], unseen: Sequence[Replay]) -> list[str]:
    """The rules at their own levels, where they have one, and at the level that stops 2 % of the tuning runs."""
    fixed = {OURS: 1.0} | {name: level for name, (_, level) in NAIVE_RULES.items() if level is not None}
    chosen = {name: level_for(tuning, name, FALSE_STOPS) for name in NAIVE_RULES}
    parts = []
    for title, runs in (("families not used for tuning", unseen), ("tuning families", tuning)):
        rows = [judge(runs, name, level) for name, level in fixed.items()]
        parts.append(_table(f"### Imminent, {title}, each rule at its own level", rows))
    rows = [judge(unseen, OURS, 1.0), *(judge(unseen, name, level) for name, level in chosen.items())]
    parts.append(
        _table(
            "### Imminent, families not used for tuning, naive rules at the level that stops 2 % of tuning runs", rows
        )
    )
    rows = [judge(unseen, name, level_for(unseen, name, FALSE_STOPS)) for name in RULES]
    parts.append(
        _table("### The most that each rule could do at 2 % false stops, its level chosen on these runs", rows)
    )
    parts.append(_by_family([*unseen, *tuning]))
    return parts


def share(n: int, of: int) -> str:
    """A share with its 95 % Wilson interval."""
    if not of:
        return "-"
    interval = binomtest(n, of).proportion_ci(method="wilson")
    return f"{n / of:.2f} ({n}/{of}; {interval.low:.2f}-{interval.high:.2f})"


def _table(title: str, rows: Iterable[Row]) -> str:
    return "\n".join([title, "", HEADER, *map(str, rows), ""])


def _by_family(runs: Sequence[Replay]) -> str:
    lines = ["### The search's rule by family", "", "| family | recall | any time | healthy stopped | lead |"]
    lines.append("|---|---|---|---|---|")
    for family in dict.fromkeys(r.trace.family for r in runs):
        row = judge([r for r in runs if r.trace.family == family], OURS, 1.0)
        lead = f"{np.median(row.leads):.0f}" if row.leads else "-"
        lines.append(
            f"| {family} | {row.n_foreseen}/{row.n_spiking} | {row.n_caught}/{row.n_spiking} | "
            f"{row.n_stopped}/{row.n_healthy} | {lead} |"
        )
    return "\n".join([*lines, ""])
