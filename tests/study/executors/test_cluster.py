"""A search over the nodes of a Ray cluster: its files arrive, its results come back, and a node may die."""

import csv
import os
import signal
import subprocess
import sys
import textwrap
import threading

import pytest

from stabletune import search
from stabletune.config import load_config
from stabletune.study.listener import Listener
from tests.ports import free_ports

pytestmark = [pytest.mark.ray, pytest.mark.slow]

WORKLOAD = """
    import torch, stabletune
    from beside import SCALE

    def build(seed, device):
        assert "working_dir_files" in __file__, __file__
        model = torch.nn.Linear(4, 1)
        data = torch.randn(32, 4)
        return stabletune.Training(
            model=model, loss_fn=lambda m, b: (m(b[0]) - SCALE * b[1]).square().mean(),
            batches=[(data, data.sum(-1, keepdim=True))],
        )
"""


@pytest.fixture(scope="module")
def client_port():
    return free_ports(1)[0]


@pytest.fixture(scope="module")
def cluster(client_port):
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 1, "include_dashboard": False, "ray_client_server_port": client_port}
    found = Cluster(initialize_head=True, head_node_args=head)
    found.add_node(num_cpus=1)
    yield found
    found.shutdown()


@pytest.fixture
def config_on(cluster, tmp_path):
    """A config of a workload in a file with another beside it, at an address of the cluster."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "workload.py").write_text(textwrap.dedent(WORKLOAD))
    (folder / "beside.py").write_text("SCALE = 1.0\n")

    def write(address, **budget):
        text = f"""
            version: 1
            name: mine
            workload: workload.py:build
            search_space: adam_lr_beta2
            resources: {{address: "{address}"}}
            budget: {{trials: 6, trial_steps: 60, full_steps: 120, confirm_seeds: 2}}
        """
        (folder / "config.yaml").write_text(textwrap.dedent(text))
        return folder / "config.yaml"

    return write


def trials_of(folder):
    with (folder / "trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("kind", ["HOST:PORT", "ray://"])
def test_the_workloads_folder_is_sent_and_every_trial_comes_back(cluster, client_port, config_on, tmp_path, kind):
    address = cluster.address if kind == "HOST:PORT" else f"ray://127.0.0.1:{client_port}"
    command = [sys.executable, "-m", "stabletune.cli", "search", str(config_on(address)), "--output"]
    done = subprocess.run([*command, str(tmp_path / "out")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sorted(int(row["trial"]) for row in trials_of(tmp_path / "out")) == list(range(6))
    assert all(row["status"] != "failed" for row in trials_of(tmp_path / "out"))


class KillsNode(Listener):
    """Kills the raylet of a node as soon as a trial reports from anywhere."""

    def __init__(self, node):
        self.node, self.has_killed = node, threading.Event()

    def on_result(self, result):
        if not self.has_killed.is_set():
            self.has_killed.set()
            process = self.node.all_processes["raylet"][0].process
            os.kill(process.pid, signal.SIGKILL)


def test_a_node_that_dies_loses_no_finished_trial(cluster, config_on, tmp_path):
    victim = cluster.add_node(num_cpus=1)
    config = load_config(config_on(cluster.address), overrides=["budget.trials=12", "budget.trial_steps=120"])
    listener = KillsNode(victim)
    result = search(config.path, output=tmp_path / "out", overrides=["budget.trials=12"], listener=listener)
    assert listener.has_killed.is_set()
    assert result.n_trials == 12
    assert sorted(int(row["trial"]) for row in trials_of(tmp_path / "out")) == list(range(12))
