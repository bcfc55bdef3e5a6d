from __future__ import annotations

import os
from pathlib import Path

import pytest

from stabletune.results.atomic_files import append_line, replace_file


def test_a_file_is_replaced_whole_and_its_folder_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.txt"
    replace_file(path, "old")
    replace_file(path, "new")
    assert path.read_text() == "new" and [entry.name for entry in path.parent.iterdir()] == ["b.txt"]


def test_a_failed_write_leaves_the_old_content_and_no_remains(tmp_path: Path) -> None:
    path = tmp_path / "b.txt"
    replace_file(path, "old")
    with pytest.raises(UnicodeEncodeError):
        replace_file(path, "\ud800")
    with pytest.raises(OSError):
        replace_file(tmp_path / "b.txt" / "c.txt", "new")
    assert path.read_text() == "old" and [entry.name for entry in tmp_path.iterdir()] == ["b.txt"]


def test_files_are_as_readable_as_the_process_allows(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        replace_file(tmp_path / "b.txt", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "b.txt").stat().st_mode & 0o777 == 0o640


def test_lines_are_appended(tmp_path: Path) -> None:
    append_line(tmp_path / "c.csv", "a,b")
    append_line(tmp_path / "c.csv", "1,2")
    assert (tmp_path / "c.csv").read_text() == "a,b\n1,2\n"
