"""Which hyperparameter mattered, as far as the trials tell."""

from __future__ import annotations

from typing import Any

from stabletune.results.report.findings import Findings
from stabletune.results.report.words import NOTHING, escape, number, table, tag

ASPECTS = {"objective": "for the objective", "stability": "for staying clean"}


def importance_section(findings: Findings) -> str:
    """Shares of what each hyperparameter explains; where the trials are too few, that and how many it takes."""
    found = findings.analysis.get("importance")
    if not found:
        return ""
    names = list(dict.fromkeys(name for aspect in ASPECTS for name in found[aspect] or {}))
    missing = [_too_few(found, aspect) for aspect in ASPECTS if found[aspect] is None]
    rows = [[escape(name), *(_share(found[aspect], name) for aspect in ASPECTS)] for name in names]
    note = (
        "How much of the differences between trials each hyperparameter explains, alone and with the others (fANOVA), "
        "in the predicted objective and in the predicted chance of a clean run at the full horizon."
    )
    body = tag("p", note) + table(["", *ASPECTS.values()], rows) if rows else ""
    return body + "".join(tag("p", sentence) for sentence in missing)


def _share(shares: dict[str, float] | None, name: str) -> str:
    return NOTHING if shares is None else f"{100 * shares.get(name, 0.0):.0f} %"


def _too_few(found: dict[str, Any], aspect: str) -> str:
    n, needed = found["n_trials"][aspect], found["needed"]
    if n >= needed:
        return f"What mattered {ASPECTS[aspect]} cannot be told: the trials do not differ in it."
    return f"Too few trials to say what mattered {ASPECTS[aspect]}: {number(n)} that count, of {number(needed)} needed."
