from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

Writer = Callable[..., Path]

REQUIRED = "name: some-study\nworkload: workload.py:build\nsearch_space: adam_lr_beta2\n"


@pytest.fixture
def write(tmp_path: Path) -> Writer:
    """Writes a config of the required keys and what is given, beside a workload of the given source."""

    def _write(
        text: str = "", *, head: str = REQUIRED, workload: str = "def build(seed, device, **rest): ...\n"
    ) -> Path:
        (tmp_path / "workload.py").write_text(workload, encoding="utf-8")
        path = tmp_path / "config.yaml"
        path.write_text(head + text, encoding="utf-8")
        return path

    return _write
