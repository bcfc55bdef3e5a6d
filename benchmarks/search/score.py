"""From the records of searches to the tables: acceptance, steps, regret, survival, and spikes on further seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.search.tasks import CONFIRM_SEEDS, FULL_STEPS

FLOOR = CONFIRM_SEEDS * FULL_STEPS
REFERENCE = "tpe_spike_constraint"
Record = dict[str, Any]


def tables(records: Sequence[Record]) -> str:
    """One table over all tasks, and the regret by task, in Markdown."""
    oracles = {record["task"]: record for record in records if record["method"] == "oracle"}
    searches = [record for record in records if record["method"] != "oracle"]
    methods = list(dict.fromkeys(record["method"] for record in searches))
    by_method = {method: [r for r in searches if r["method"] == method] for method in methods}
    reference = steps_above_floor(by_method[REFERENCE]) if REFERENCE in by_method else None
    head = (
        "method", "accepted", "steps per acceptance above the floor", f"÷ {REFERENCE}", "regret, median", "worst",
        "candidates that survived", "spiky runs on further seeds",
    )  # fmt: skip
    lines = [_row(head), _row(["---"] + ["---:"] * (len(head) - 1))]
    for method, found in by_method.items():
        accepted = [record for record in found if "lr" in record]
        regrets = [regret(record, oracles[record["task"]]) for record in accepted]
        above = steps_above_floor(found)
        lines.append(
            _row(
                [
                    method,
                    _share(len(accepted), len(found)),
                    f"{above:,.0f}",
                    "" if not reference else f"{above / reference:.2f}",
                    f"{statistics.median(regrets):.3f}" if regrets else "",
                    f"{max(regrets):.3f}" if regrets else "",
                    _share(len(accepted), sum(record["n_sent"] for record in found)),
                    _share(sum(r["n_spiky"] for r in accepted), sum(r["n_fresh"] for r in accepted)),
                ]
            )
        )
    return "\n".join([*lines, "", *_by_task(by_method, oracles)]) + "\n"


def steps_above_floor(found: Sequence[Record]) -> float:
    """Optimizer steps of all searches for each accepted recommendation, less those of one proof."""
    n_accepted = sum("lr" in record for record in found)
    return sum(record["n_steps"] for record in found) / n_accepted - FLOOR if n_accepted else math.inf


def regret(record: Record, oracle: Record) -> float:
    """log(final / oracle) / log(initial / oracle), the final loss its median over further seeds."""
    final = statistics.median(record["final_losses"])
    return math.log(final / oracle["final_loss"]) / math.log(oracle["initial_loss"] / oracle["final_loss"])


def _by_task(by_method: dict[str, list[Record]], oracles: dict[str, Record]) -> list[str]:
    lines = [_row(["regret by task (accepted)", *oracles]), _row(["---"] + ["---:"] * len(oracles))]
    lines.append(_row(["oracle: lr, beta2, loss", *(_describe(oracle) for oracle in oracles.values())]))
    for method, found in by_method.items():
        cells = []
        for task, oracle in oracles.items():
            here = [record for record in found if record["task"] == task]
            regrets = [regret(record, oracle) for record in here if "lr" in record]
            cells.append(
                f"{statistics.median(regrets):.3f} ({len(regrets)} of {len(here)})"
                if regrets
                else f"- (0 of {len(here)})"
            )
        lines.append(_row([method, *cells]))
    return lines


def _describe(oracle: Record) -> str:
    return f"{oracle['lr']:.2g}, {oracle['beta2']:.4g}, {oracle['final_loss']:.2g}"


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole} ({part / whole:.0%})" if whole else "-"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
