"""A table that a kill has cut anywhere is read up to there, and written on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stabletune.results.table import Table

cells = (
    st.none() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False) | st.sampled_from(["a b", "x,y", '"', "é"])
)
rows = st.lists(
    st.fixed_dictionaries({"n": st.integers(0, 6), "a": cells, "reason": st.text('ab ,"\n\r\t;é', max_size=8)}),
    max_size=6,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tables")


def as_read(row):
    return {**row, "reason": " ".join(row["reason"].split())}


@given(rows=rows, cut=st.integers(0, 400))
def test_a_table_cut_anywhere_holds_its_whole_rows_and_takes_more(folder, rows, cut):
    path = folder / "t.csv"
    path.unlink(missing_ok=True)
    table = Table(path, ("n",))
    for row in rows:
        table.write(row)
    expected = list({row["n"]: as_read(row) for row in rows}.values())
    assert Table(path, ("n",)).rows() == expected
    content = path.read_bytes() if path.exists() else b""
    path.write_bytes(content[:cut])
    again = Table(path, ("n",))
    left = again.rows()
    assert left == expected[: max(0, content[:cut].count(b"\n") - 1)]
    again.write({"n": 99, "a": 1, "reason": "more"})
    assert Table(path, ("n",)).rows() == [*left, {"n": 99, "a": 1, "reason": "more"}]
