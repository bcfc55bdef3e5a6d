"""A real journal, cut or damaged anywhere, is gone on with as far as it is whole, or refused by its name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stabletune.config import load_config
from stabletune.errors import OutputFolderError
from stabletune.study.optuna_study import SearchStudy
from tests.study.running import run

CONFIG = """
name: study
workload: quadratic
search_space: adam_lr_beta2
budget: {trials: 3, trial_steps: 20, full_steps: 40, confirm_seeds: 1}
"""
JUNK = [
    b"",
    b"{}",
    b"null",
    b"[]",
    b"{",
    b"\xff\xfe",
    b'{"op_code": 99, "worker_id": "x"}',
    b'{"op_code": 4}',
    b"[" * 9999,
]


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """The config of a search that has ended, where its journal may be written anew, and the lines of the journal."""
    folder = tmp_path_factory.mktemp("journals")
    (folder / "config.yaml").write_text(CONFIG)
    run(folder / "config.yaml", folder / "run")
    journal = folder / "run" / "study.journal"
    return load_config(folder / "config.yaml"), folder / "study.journal", journal.read_bytes().splitlines(keepends=True)


def reopened(searched, content):
    """The records of the finished trials once the study is gone on with; None where it is refused by its name."""
    config, path, _ = searched
    path.write_bytes(content)
    try:
        study = SearchStudy(config, path, beginning="again")
    except OutputFolderError as error:
        assert str(path) in str(error) or str(error).startswith(f"{config.output}: ")
        assert "start another search" in str(error).lower()
        return None
    study.set_attribute("afterwards", True)
    again = SearchStudy(config, path, beginning="again")
    assert again.attribute("afterwards", False)
    assert again.records() == study.records()
    return again.records()


def is_part(found, whole):
    """Whether ``found`` is ``whole`` with some left out."""
    rest = iter(whole)
    return all(any(one == other for other in rest) for one in found)


@given(data=st.data())
def test_a_journal_cut_at_any_byte_holds_the_first_trials(searched, data):
    lines = searched[2]
    whole = b"".join(lines)
    records = reopened(searched, whole)
    cut = data.draw(st.integers(0, len(whole)))
    left = reopened(searched, whole[:cut])
    if left is None:  # not even the study is there yet
        assert cut < len(lines[0])
        return
    assert left == records[: len(left)]


@given(data=st.data())
def test_a_journal_with_lines_lost_doubled_swapped_or_strange_holds_trials_that_were_told(searched, data):
    lines = list(searched[2])
    records = reopened(searched, b"".join(lines))
    where = data.draw(st.integers(0, len(lines) - 1))
    damage = data.draw(st.sampled_from(["lost", "doubled", "swapped", "halved", *JUNK]))
    if damage == "lost":
        del lines[where]
    elif damage == "doubled":
        lines.insert(where, lines[where])
    elif damage == "swapped":
        other = data.draw(st.integers(0, len(lines) - 1))
        lines[where], lines[other] = lines[other], lines[where]
    elif damage == "halved":
        lines[where] = lines[where][: len(lines[where]) // 2] + b"\n"
    else:
        lines.insert(where, damage + b"\n")
    found = reopened(searched, b"".join(lines))
    assert found is None or is_part(found, records)


@given(data=st.data(), byte=st.integers(0, 255))
def test_a_journal_with_any_byte_changed_is_read_or_refused(searched, data, byte):
    content = bytearray(b"".join(searched[2]))
    content[data.draw(st.integers(0, len(content) - 1))] = byte
    found = reopened(searched, bytes(content))
    assert found is None or all(isinstance(record, dict) for record in found)
