"""A real journal, cut or damaged anywhere, is gone on with as far as it is whole, or refused by its name."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.storages.journal._storage import JournalOperation
from optuna.trial import TrialState

from stabletune.config import load_config
from stabletune.errors import OutputFolderError
from stabletune.study.optuna_study import SearchStudy
from tests.study.running import rows_of, run

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
    """Of a search that has ended the config, a place for other journals, the lines of its journal and its records."""
    folder = tmp_path_factory.mktemp("journals")
    (folder / "config.yaml").write_text(CONFIG)
    run(folder / "config.yaml", folder / "run")
    journal = folder / "run" / "study.journal"
    config, lines = load_config(folder / "config.yaml"), journal.read_bytes().splitlines(keepends=True)
    place = folder / "study.journal"
    records = reopened((config, place), b"".join(lines))
    assert len(records) == len(rows_of(folder / "run" / "trials.csv")) == n_told(b"".join(lines)) == 3
    return config, place, lines, records


def reopened(searched, content):
    """The records of the finished trials once the study is gone on with; None where it is refused by its name."""
    config, path = searched[:2]
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


def n_told(content):
    """How many trials have ended by the whole lines of a journal."""
    entries = [json.loads(line) for line in content.split(b"\n")[:-1]]
    told = [entry for entry in entries if entry["op_code"] == JournalOperation.SET_TRIAL_STATE_VALUES]
    return sum(TrialState(entry["state"]).is_finished() for entry in told)


def is_part(found, whole):
    """Whether ``found`` is ``whole`` with some left out."""
    rest = iter(whole)
    return all(any(one == other for other in rest) for one in found)


@given(data=st.data())
def test_a_journal_cut_at_any_byte_holds_the_first_trials(searched, data):
    lines, records = searched[2:]
    whole = b"".join(lines)
    cut = data.draw(st.integers(0, len(whole)))
    left = reopened(searched, whole[:cut])
    if left is None:  # not even the study is there yet
        assert cut < len(lines[0])
        return
    assert left == records[: n_told(whole[:cut])]


@given(data=st.data())
def test_a_journal_with_lines_lost_doubled_swapped_or_strange_holds_trials_that_were_told(searched, data):
    lines, records = list(searched[2]), searched[3]
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
    if damage in ("doubled", b"{}"):
        assert found is None or found == records


@given(data=st.data(), byte=st.integers(0, 255))
def test_a_journal_with_any_byte_changed_is_read_or_refused(searched, data, byte):
    content = bytearray(b"".join(searched[2]))
    content[data.draw(st.integers(0, len(content) - 1))] = byte
    found = reopened(searched, bytes(content))
    assert found is None or all(isinstance(record, dict) for record in found)
