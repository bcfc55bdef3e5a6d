"""How heavy a report of 200 trials is, and how long a browser takes to open it until its charts are drawn."""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from timing import figure, seconds_of

from stabletune.results.report import write_report
from tests.results.report.studies import finished_study, write_trials

N_TRIALS = 200


def main() -> None:
    folder = finished_study(Path(tempfile.mkdtemp(prefix="stabletune-bench-")) / "run")
    write_trials(folder, N_TRIALS)
    path = write_report(folder)
    figure("report of 200 trials, written in", seconds_of(lambda: write_report(folder), repeats=3), "s")
    figure("report of 200 trials, size", path.stat().st_size / 2**20, "MiB", "< 6")
    chromium = shutil.which("chromium")
    if chromium is None:
        print("not opened: no chromium on this machine")
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        seconds = []
        for _ in range(5):
            page = browser.new_page()
            started = time.perf_counter()
            page.goto(path.as_uri())
            page.wait_for_function("document.querySelectorAll('.js-plotly-plot .main-svg').length >= 3")
            seconds.append(time.perf_counter() - started)
            page.close()
        browser.close()
    figure("report of 200 trials, opened and drawn in", statistics.median(seconds), "s", "< 2")


if __name__ == "__main__":
    main()
