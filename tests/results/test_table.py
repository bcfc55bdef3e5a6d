from __future__ import annotations

import math
from pathlib import Path

import pytest

from stabletune.errors import OutputFolderError
from stabletune.results.table import Table


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return Table(tmp_path / "t.csv", ["n"])


def test_an_absent_file_has_no_rows(table: Table) -> None:
    assert table.rows() == []


def test_values_keep_their_kind(table: Table) -> None:
    row = {"n": 1, "a": 1e-8, "b": None, "c": True, "d": "relu", "e": math.inf}
    table.write(row)
    assert table.rows() == [row]


def test_nan_is_written_as_nan(table: Table) -> None:
    table.write({"n": 1, "a": math.nan})
    assert table.path.read_text() == "n,a\n1,nan\n"
    assert math.isnan(table.rows()[0]["a"])


def test_a_torn_last_line_is_dropped_and_the_next_row_is_whole(table: Table) -> None:
    table.write({"n": 1, "reason": "fine"})
    with table.path.open("a") as file:
        file.write('2,"half a rea')
    again = Table(table.path, ["n"])
    assert [row["n"] for row in again.rows()] == [1]
    again.write({"n": 3, "reason": "fine"})
    assert [row["n"] for row in again.rows()] == [1, 3]


def test_a_file_cut_inside_its_header_counts_as_empty(table: Table) -> None:
    table.path.write_text("n,rea")
    table.write({"n": 1, "reason": "fine"})
    assert table.rows() == [{"n": 1, "reason": "fine"}]


def test_a_row_with_a_new_column_widens_the_table(table: Table) -> None:
    table.write({"n": 1, "z": 5})
    table.write({"n": 2, "lr": 0.1, "z": 6})
    assert table.rows() == [{"n": 1, "lr": None, "z": 5}, {"n": 2, "lr": 0.1, "z": 6}]


def test_rewriting_keeps_the_last_of_two_rows_with_one_key(table: Table) -> None:
    table.write({"n": 9, "a": 0})
    table.rewrite([{"n": 1, "a": 1}, {"n": 2, "a": 2}, {"n": 1, "a": 3}])
    assert table.rows() == [{"n": 1, "a": 3}, {"n": 2, "a": 2}]
    table.write({"n": 2, "a": 4})
    assert table.rows() == [{"n": 1, "a": 3}, {"n": 2, "a": 4}]


def test_a_broken_row_is_named_with_its_line(table: Table) -> None:
    table.path.write_text("n,a\n1,2\n1,2,3\n")
    with pytest.raises(OutputFolderError, match=r"t\.csv:3: each row must have 2 cells, but got 3"):
        table.rows()
