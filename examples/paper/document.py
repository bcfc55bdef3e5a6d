"""Writes docs/reproduction.md: the findings of the last run of each item flow in, one page with one table out."""

from __future__ import annotations

import dataclasses
import importlib
import json
from collections.abc import Mapping
from pathlib import Path

from examples.paper.experiments import ITEMS, Outcome
from examples.paper.findings import MISSED, REPRODUCED, SHOWN, Finding, table

OPENING = """# What reproduces

`make reproduce` runs the experiments that stabletune's signals rest on, with `InstrumentedAdamW` and `StabilityMonitor`
as a user has them, and writes this page: what was expected, what was measured, and whether the two agree within the
tolerance stated. `make reproduce FULL=1` takes more seeds and longer runs; `make reproduce ITEMS="1 3"` runs some of
them and leaves the other rows as they are. The scripts are in
[examples/paper](../examples/paper/README.md). Main source: "Adaptive Preconditioners Trigger Loss Spikes in Adam"
(arXiv:2506.04805). What is expected without a
source was measured earlier on other seeds.

Figures share one time axis: the loss, S and the gradient-curvature ratio against the edge at 1, v̂ staleness, and the
alignment of the gradient with the top direction. Spikes by stabletune's definition are shaded. Another machine sums in
another order: first steps and closed forms hold there, counts and steps of late spikes move.
"""


def write_document(outcomes: Mapping[int, Outcome], folder: Path) -> None:
    """Write ``reproduction.md`` into the folder that holds ``figures/``."""
    rows = [(str(number), finding) for number, outcome in sorted(outcomes.items()) for finding in outcome.findings]
    sections = [_section(number, folder) for number in sorted(outcomes)]
    parts = [OPENING, "## The table\n", _summary(outcomes), table(rows), "", *sections]
    (folder / "reproduction.md").write_text("\n".join(parts), encoding="utf-8")


def save_outcomes(outcomes: Mapping[int, Outcome], folder: Path) -> None:
    """Keep the rows beside the figures, so that a run of some items leaves the others in place."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = {str(number): dataclasses.asdict(outcome) for number, outcome in sorted(outcomes.items())}
    _rows_file(folder).parent.mkdir(parents=True, exist_ok=True)
    _rows_file(folder).write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def load_outcomes(folder: Path) -> dict[int, Outcome]:
    """The rows of earlier runs; empty where there are none."""
    if not _rows_file(folder).exists():
        return {}
    kept = json.loads(_rows_file(folder).read_text(encoding="utf-8"))
    return {
        int(number): Outcome(
            findings=[Finding(**finding) for finding in outcome["findings"]],
            is_full=outcome["is_full"],
            seconds=outcome["seconds"],
        )
        for number, outcome in kept.items()
    }


def _rows_file(folder: Path) -> Path:
    return folder / "figures" / "reproduction.json"


def _summary(outcomes: Mapping[int, Outcome]) -> str:
    verdicts = [finding.verdict for outcome in outcomes.values() for finding in outcome.findings]
    modes = ", ".join(
        f"{number} {'full' if outcome.is_full else 'default'} ({outcome.seconds:.0f} s)"
        for number, outcome in sorted(outcomes.items())
    )
    counts = f"{verdicts.count(REPRODUCED)} reproduced, {verdicts.count(MISSED)} missed, {verdicts.count(SHOWN)} shown"
    return f"{counts} without a verdict. Mode of each item and seconds of one core: {modes}.\n"


def _section(number: int, folder: Path) -> str:
    module = importlib.import_module(f"examples.paper.{ITEMS[number]}")
    pictures = sorted((folder / "figures").glob(f"reproduction_{number}*.png"))
    images = "\n\n".join(f"![{module.TITLE}](figures/{picture.name})" for picture in pictures)
    return f"## {module.TITLE}\n\n{module.ABOUT}\n\n{images}\n"
