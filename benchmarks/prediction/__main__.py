"""Judges the search's rule and forecast on the corpus beside others: ``python -m benchmarks.prediction``.

Minutes on one core. ``--corpus FILE`` takes another corpus, ``--write`` updates docs/prediction.md.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

from benchmarks.corpus.families import FAMILIES
from benchmarks.corpus.traces import TRACES, read_traces
from benchmarks.document import write_measured
from benchmarks.prediction import horizon, imminent
from benchmarks.prediction.replay import replay


def main() -> None:
    """Print the tables, and put them into docs/prediction.md if asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prediction", description=__doc__)
    parser.add_argument("--corpus", type=Path, default=TRACES, help="written by benchmarks.corpus")
    parser.add_argument("--write", action="store_true", help="replace the tables of docs/prediction.md")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    traces = read_traces(arguments.corpus)
    tuning = {family.name for family in FAMILIES if family.is_for_tuning}
    parts = horizon.tables(traces, tuning)
    runs = [run for trace in traces if (run := replay(trace, imminent.RULES)) is not None]
    parts += imminent.tables(
        [run for run in runs if run.trace.family in tuning], [run for run in runs if run.trace.family not in tuning]
    )
    text = "\n".join(parts)
    print(text)
    if arguments.write:
        write_measured("prediction.md", text)


if __name__ == "__main__":
    main()
