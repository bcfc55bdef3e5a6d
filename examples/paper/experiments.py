"""The list of the experiments, and how one of them is run: a number flows in, an ``Outcome`` out."""

from __future__ import annotations

import dataclasses
import importlib
import time
from collections.abc import Mapping
from pathlib import Path

import torch

from examples.paper.findings import Finding

ITEMS: Mapping[int, str] = {
    1: "quadratic",
    2: "beta_plane",
    3: "power_laws",
    4: "tanh_spikes",
    5: "wide_regression",
    6: "modular",
    7: "small_networks",
}
"""The module of each experiment, beside this file."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What one experiment found, in which mode, in how many seconds."""

    findings: list[Finding]
    is_full: bool
    seconds: float


def run_item(number: int, folder: Path, *, full: bool) -> Outcome:
    """Run one experiment in this process, on one thread so that sums come in one order."""
    torch.set_num_threads(1)
    started = time.perf_counter()
    findings = importlib.import_module(f"examples.paper.{ITEMS[number]}").reproduce(folder, full=full)
    return Outcome(findings=findings, is_full=full, seconds=time.perf_counter() - started)
