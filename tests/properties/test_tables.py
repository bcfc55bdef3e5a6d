"""Tables and journals that a kill has cut anywhere are read up to there, and written on."""

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.storages.journal import JournalFileBackend

from stabletune.results.table import Table

cells = (
    st.none() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False) | st.sampled_from(["a b", "x,y", '"', "é"])
)
rows = st.lists(st.fixed_dictionaries({"a": cells, "reason": st.text('ab ,"\n\r\t;é', max_size=8)}), max_size=6)


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
    for n, row in enumerate(rows):
        table.write({"n": n, **row})
    expected = [{"n": n, **as_read(row)} for n, row in enumerate(rows)]
    assert Table(path, ("n",)).rows() == expected
    content = path.read_bytes() if path.exists() else b""
    path.write_bytes(content[:cut])
    again = Table(path, ("n",))
    left = again.rows()
    assert left == expected[: len(left)]
    again.write({"n": 99, "a": 1, "reason": "more"})
    assert Table(path, ("n",)).rows() == [*left, {"n": 99, "a": 1, "reason": "more"}]


@given(cut=st.integers(0, 6000), n_trials=st.integers(1, 5))
def test_a_journal_cut_anywhere_replays_to_trials_that_were_told(folder, cut, n_trials):
    path = folder / "study.journal"
    for old in folder.glob("study.journal*"):
        old.unlink()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(study_name="s", storage=optuna.storages.JournalStorage(JournalFileBackend(str(path))))
    for n in range(n_trials):
        trial = study.ask()
        trial.suggest_float("x", 0.0, 1.0)
        study.tell(trial, float(n))
    content = path.read_bytes()
    path.write_bytes(content[: min(cut, len(content))])
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(path)))
    if not storage.get_all_studies():
        return
    trials = optuna.load_study(study_name="s", storage=storage).get_trials(deepcopy=False)
    finished = [trial for trial in trials if trial.state.is_finished()]
    assert [trial.value for trial in finished] == [float(n) for n in range(len(finished))]
