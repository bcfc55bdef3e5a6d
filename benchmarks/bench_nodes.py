"""A search over two nodes against the same search on one node with as many CPUs, on one machine.

Each search is a process of its own, at the address of a Ray cluster of one node with two CPUs or of two with one, whose
workers it has to start; one after the other, in turn. The goal: at most 1.15 times the time.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from timing import figure

N_ROUNDS, GOAL = 3, 1.15
WORKLOAD = """
import torch
from stabletune import Training

def build(seed, device):
    model = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.Tanh(), torch.nn.Linear(256, 1))
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(512, 64, generator=generator), torch.randn(512, 1, generator=generator)
    return Training(model=model, loss_fn=lambda m, b: ((m(b[0]) - b[1]) ** 2).mean(), batches=[(x, y)])
"""


def seconds_on(nodes: list[int], folder: Path) -> float:
    """How long a search takes on a cluster of nodes with so many CPUs each, the cluster's own start left out."""
    from ray.cluster_utils import Cluster

    cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": nodes[0], "include_dashboard": False})
    try:
        for n_cpus in nodes[1:]:
            cluster.add_node(num_cpus=n_cpus)
        output = Path(tempfile.mkdtemp(dir=folder)) / "out"
        command = [sys.executable, "-m", "stabletune.cli", "search", str(folder / "config.yaml"), "--quiet"]
        override = ["--output", str(output), "--set", f"resources.address={cluster.address}"]
        began = time.perf_counter()
        subprocess.run([*command, *override], check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - began
    finally:
        cluster.shutdown()


def main() -> None:
    """Print both times and their ratio."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    folder = Path(tempfile.mkdtemp(prefix="stabletune-nodes-"))
    (folder / "workload.py").write_text(WORKLOAD)
    content = {
        "version": 1,
        "name": "nodes",
        "workload": "workload.py:build",
        "search_space": "adam_lr_beta2",
        "budget": {"trials": 16, "trial_steps": 1000, "full_steps": 2000, "confirm_seeds": 3},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    one, two = [], []
    for _ in range(N_ROUNDS):
        one.append(seconds_on([2], folder))
        two.append(seconds_on([1, 1], folder))
    figure("a search on one node with two CPUs, median", statistics.median(one), "s")
    figure("on two nodes with one each, median", statistics.median(two), "s")
    ratios = [b / a for a, b in zip(one, two, strict=True)]
    figure("two nodes / one, median of the rounds", statistics.median(ratios), "", f"<= {GOAL}")


if __name__ == "__main__":
    main()
