"""The tables of every trial and of every proof run: what was tried, where it stopped, and why."""

from __future__ import annotations

import math
from collections import Counter

from stabletune.results.report.findings import Findings, Row, hyperparameters
from stabletune.results.report.words import NOTHING, STATUS_MARKS, escape, number, setting, status, table, tag


def trials_section(findings: Findings) -> str:
    """Every trial in a table that sorts by its heads."""
    names = hyperparameters(findings.trials)
    head = ["trial", "status", *(escape(name.removeprefix("workload_args.")) for name in names)]
    head += ["objective", "spikes", "cause", "max&nbsp;S", "steps", "why it ended"]
    rows = [_trial_cells(row, names, findings) for row in findings.trials]
    counts = Counter(row["status"] for row in findings.trials)
    summary = " · ".join(f"{status(name)} {counts[name]}" for name in STATUS_MARKS if counts[name])
    return tag("p", summary) + table(head, rows, class_="sortable")


def causes_section(findings: Findings) -> str:
    """How often each cause was found, and for each the trial where it was worst: what shows it, and what would help."""
    caused = [row for row in findings.trials if row.get("cause")]
    counts = Counter(row["cause"] for row in caused)
    rows = []
    for cause, n in counts.most_common():
        worst = max((row for row in caused if row["cause"] == cause), key=_height)
        cells = (cause, n, worst["trial"], worst["evidence"], worst["remedy"])
        rows.append([escape(cell) for cell in cells])
    return table(["cause", "trials", "for example trial", "evidence", "the one change"], rows) if rows else ""


def _height(row: Row) -> float:
    """How high the loss rose: without bound where it diverged."""
    return math.inf if row["status"] == "diverged" else row["worst_spike_ratio"] or 0.0


def proof_section(findings: Findings) -> str:
    """Every proof run, the baseline's too."""
    proofs = [*findings.candidates, findings.baseline]
    shown = {(row["candidate"], row["purpose"], row["seed"]): row for proof in proofs for row in proof.rows}
    head = ["trial", "status", "seed", "objective", "spikes", "worst jump", "max&nbsp;S", "steps", "how it ended"]
    return table(head, [_proof_cells(row) for row in shown.values()], class_="sortable")


def _trial_cells(row: Row, names: list[str], findings: Findings) -> list[str]:
    is_best = findings.recommendation is not None and findings.best and row["trial"] == findings.best.candidate
    label = str(row["trial"]) + (" ★" if is_best else "") + (" (baseline)" if row["trial"] == 0 else "")
    return [
        escape(label),
        status(row["status"]),
        *(setting(row.get(name)) for name in names),
        number(row["objective"]),
        number(row["n_spikes"]),
        escape(row.get("cause") or NOTHING),
        number(row["max_sharpness_ratio"]),
        number(row["steps"]),
        tag("span", escape(row["reason"]), class_="reason"),
    ]


def _proof_cells(row: Row) -> list[str]:
    worst = row["worst_spike_ratio"]
    return [
        escape(row["candidate"]) + (" (baseline)" if row["purpose"] == "baseline" else ""),
        status(row["status"]),
        escape(row["seed"]),
        number(row["objective"]),
        number(row["n_spikes"]),
        number(worst) + ("×" if worst is not None else ""),
        number(row["max_sharpness_ratio"]),
        number(row["steps"]),
        tag("span", escape(row["reason"]), class_="reason"),
    ]
