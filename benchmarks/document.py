"""Puts what a benchmark measured into its page of docs/."""

from __future__ import annotations

from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"
BEGIN, END = "<!-- begin: measured -->", "<!-- end: measured -->"


def write_measured(page: str, text: str) -> None:
    """Replace what stands between the two marks of a page."""
    path = DOCS / page
    before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    path.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}", encoding="utf-8")
