import os
import tempfile
import textwrap
from pathlib import Path

import pytest

QUADRATIC = """
    version: 1
    name: quadratic
    workload: quadratic
    workload_args: {jitter: 0.1, curvatures: [1.0, 30.0]}
    search_space:
      lr: {low: 1.0e-3, high: 1.0e-1, scale: log}
      beta2: {low: 0.9, high: 0.999, scale: log_one_minus}
    budget: {trials: 6, trial_steps: 60, full_steps: 150, confirm_seeds: 2}
"""


def pytest_collection_modifyitems(config, items):
    """Where several processes share the files, those that start Ray come first: the longest are not to be the last."""
    if hasattr(config, "workerinput"):
        start_ray = {item.path for item in items if item.get_closest_marker("ray")}
        items.sort(key=lambda item: item.path not in start_ray)


@pytest.fixture(scope="session", autouse=True)
def rays_folder():
    """What every Ray of these tests writes is found by no other Ray; the name is short, for sockets lie below it."""
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        os.environ["RAY_TMPDIR"] = folder
        yield Path(folder)
        del os.environ["RAY_TMPDIR"]


@pytest.fixture
def write_config(tmp_path):
    """Write a small study's config with some text replaced; returns its path."""

    def write(*replacements):
        text = textwrap.dedent(QUADRATIC)
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "config.yaml"
        path.write_text(text)
        return path

    return write
