"""The report: one self-contained ``report.html`` from a run folder, without a network and without the workload.

Flows in: the files of a ``RunFolder``. Flows out: one page, for finished, unfinished and fruitless studies alike.
"""

from __future__ import annotations

from pathlib import Path

from stabletune.results.atomic_files import replace_file
from stabletune.results.report.page import build_page
from stabletune.results.store import RunFolder


def write_report(folder: RunFolder) -> Path:
    """Write ``report.html`` into the run folder and return its path; an older one is replaced.

    Raises:
        OutputFolderError: the folder holds no search, or one of its files cannot be read.
    """
    replace_file(folder.report_path, build_page(folder))
    return folder.report_path
