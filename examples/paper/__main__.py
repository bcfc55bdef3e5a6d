"""Run experiments and rewrite the document: ``python -m examples.paper [ITEM ...] [--full] [--output docs]``."""

from __future__ import annotations

import argparse
import concurrent.futures
import multiprocessing
import sys
from pathlib import Path

from examples.paper.document import load_outcomes, save_outcomes, write_document
from examples.paper.experiments import ITEMS, run_item
from examples.paper.findings import MISSED, table


def main(arguments: list[str] | None = None) -> int:
    """Run the items asked for, print each table as it comes, and write the document."""
    parser = argparse.ArgumentParser(prog="python -m examples.paper", description=__doc__)
    parser.add_argument("items", nargs="*", type=int, metavar="ITEM", help="1 to 7; all by default")
    parser.add_argument("--full", action="store_true", help="more seeds, longer horizons, a finer plane")
    parser.add_argument("--output", type=Path, default=Path("docs"), help="where reproduction.md and figures/ go")
    parser.add_argument("--jobs", type=int, default=2, help="processes, one experiment each")
    options = parser.parse_args(arguments)
    unknown = [str(n) for n in options.items if n not in ITEMS]
    if unknown:
        parser.error(f"ITEM: must be one of {', '.join(map(str, ITEMS))}, but got {', '.join(unknown)}")
    wanted = options.items or list(ITEMS)
    outcomes = load_outcomes(options.output)
    replaced = [n for n in wanted if n in outcomes and outcomes[n].is_full and not options.full]
    if replaced:
        print(
            f"{options.output}: full runs of items {', '.join(map(str, replaced))} give way to shorter ones; "
            "--output DIR keeps them",
            file=sys.stderr,
        )
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(max(1, options.jobs), mp_context=context) as pool:
        # the longest first, so that none is left running alone at the end
        runs = {
            pool.submit(run_item, n, options.output / "figures", full=options.full): n
            for n in sorted(wanted, key=_rank)
        }
        for done in concurrent.futures.as_completed(runs):
            number = runs[done]
            outcomes[number] = done.result()
            print(f"\n{ITEMS[number]}: {outcomes[number].seconds:.0f} s")
            print(table((str(number), finding) for finding in outcomes[number].findings), flush=True)
            save_outcomes(outcomes, options.output)
    write_document(outcomes, options.output)
    missed = sum(f.verdict == MISSED for n in wanted for f in outcomes[n].findings)
    print(f"\n{options.output / 'reproduction.md'} written; {missed} findings missed", file=sys.stderr)
    return 0


def _rank(number: int) -> int:
    return (4, 6, 7, 5, 2, 1, 3).index(number)


if __name__ == "__main__":
    sys.exit(main())
