"""Injects one cause into each run and prints what was named: ``python -m benchmarks.diagnosis``.

About 17 minutes on one core; ``--quick`` takes one seed at the default signals.
"""

from __future__ import annotations

import argparse
import pickle
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.diagnosis.cases import Case, all_cases
from benchmarks.diagnosis.score import Outcome, outcome, replayed, summary
from benchmarks.document import write_measured
from stabletune.trial.worker import run_trial

GROUPS = ("last", "unseen", "held out", "tuning")
SETTINGS: tuple[tuple[str, int, dict[str, Any]], ...] = (
    ("default signals, overhead 0.15", 2, {"overhead": 0.15}),
    ("signals {every: 5}", 1, {"every": 5}),
)


def main() -> None:
    """Run every case, print the tables, and put them into docs/diagnosis.md if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=GROUPS, help="one group of networks")
    parser.add_argument("--quick", action="store_true", help="one seed at the default signals")
    parser.add_argument("--write", action="store_true", help="replace the tables of docs/diagnosis.md")
    parser.add_argument("--keep", type=Path, help="a folder for the pickled results")
    parser.add_argument("--replay", type=Path, help="judge the results kept there anew, without any run")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    parts = []
    for title, seeds, signals in SETTINGS[:1] if options.quick else SETTINGS:
        name = f"{'-'.join(map(str, signals))}.pkl"
        if options.replay:
            kept_runs = pickle.loads((options.replay / name).read_bytes())
            outcomes = [outcome(case, replayed(result), twin) for case, result, twin in kept_runs]
        else:
            kept = options.keep and options.keep / name
            cases = [case for case in all_cases(1 if options.quick else seeds) if options.only in (None, case.group)]
            outcomes = _run(cases, signals, kept)
        for group in GROUPS:
            chosen = [found for found in outcomes if found.case.group == group]
            if chosen:
                parts.append(summary(chosen, f"{group.capitalize()} networks, {title}"))
                print(parts[-1])
        for found in outcomes:
            if found.is_scored and not found.is_right:
                print(f"  {found.case} named {found.named}")
    if options.write:
        write_measured("diagnosis.md", "\n".join(parts))


def _run(cases: Sequence[Case], signals: dict[str, Any], keep: Path | None) -> list[Outcome]:
    found, results, started = [], [], time.monotonic()
    for number, case in enumerate(cases, start=1):
        result = run_trial(case.spec(**signals))
        twin = run_trial(case.twin.spec(**signals)) if case.twin else None
        found.append(outcome(case, result, twin))
        results.append((case, result, twin))
        last = found[-1]
        print(f"{number}/{len(cases)} {case.task} {case.cause} {case.strength:g}: {last.named}", file=sys.stderr)
    print(f"{len(cases)} runs in {time.monotonic() - started:.0f} s", file=sys.stderr)
    if keep is not None:
        keep.parent.mkdir(parents=True, exist_ok=True)
        keep.write_bytes(pickle.dumps(results))
    return found


if __name__ == "__main__":
    main()
