"""Run by a test: one search killed before each access to its folder, every time anew, and resumed.

Leaves ``N/before`` and ``N/after`` for each, and what the second said in ``N/log``.
"""

from __future__ import annotations

import shutil
import signal
import sys
from itertools import count
from pathlib import Path

import stabletune.results.report
import stabletune.study.executors.inline
import stabletune.trial.worker  # noqa: F401
from tests.faults.dying import run

config, place, every, stride = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
run(config, place / "whole", log=place / "log")
for step in count():
    n = step + 1 if step < every else every + (step - every + 1) * stride
    out, here = place / "out", place / str(n)
    here.mkdir()
    code = run(config, out, log=here / "log", dies_at=n)
    if out.exists():
        shutil.copytree(out, here / "before", symlinks=True)
    if code != -signal.SIGKILL:
        break
    print(n, run(config, out, log=here / "log", resume=True), flush=True)
    out.rename(here / "after") if out.exists() else None
