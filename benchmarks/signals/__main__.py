"""Run sections by name: ``python -m benchmarks.signals [--quick] [cost accuracy ...]``; without a name, all of them."""

from __future__ import annotations

import argparse
import importlib
import time

import torch

SECTIONS = ("cost", "accuracy", "overhead", "memory", "crossings")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.signals", description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="section", help=", ".join(SECTIONS))
    parser.add_argument("--quick", action="store_true", help="a smoke run: few steps, few points")
    arguments = parser.parse_args()
    unknown = set(arguments.sections) - set(SECTIONS)
    if unknown:
        parser.error(f"section must be one of {', '.join(SECTIONS)}, but got {', '.join(sorted(unknown))}.")
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, one thread, float32; times are ratios within one interleaved run")
    for name in arguments.sections or SECTIONS:
        started = time.perf_counter()
        print(f"\n## {name}", flush=True)
        importlib.import_module(f"benchmarks.signals.{name}").run(quick=arguments.quick)
        print(f"\n({name}: {time.perf_counter() - started:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
