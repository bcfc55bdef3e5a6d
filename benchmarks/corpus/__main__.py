"""Generate the corpus: ``python -m benchmarks.corpus [--seed N] [--jobs N] [--output FILE] [--families NAME ...]``."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.corpus.families import FAMILIES
from benchmarks.corpus.generate import generate
from benchmarks.corpus.traces import TRACES


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.corpus", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of the settings that are drawn")
    parser.add_argument("--jobs", type=int, default=1, help="processes, one thread each")
    parser.add_argument("--output", type=Path, default=TRACES, help="the file to write")
    parser.add_argument("--families", nargs="*", default=[family.name for family in FAMILIES], help="some of them")
    arguments = parser.parse_args()
    families = [family for family in FAMILIES if family.name in arguments.families]
    generate(families, arguments.output, seed=arguments.seed, n_jobs=arguments.jobs)


if __name__ == "__main__":
    main()
