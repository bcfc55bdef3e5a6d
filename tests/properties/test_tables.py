"""Tables and journals that a kill has cut anywhere are read up to there, and written on."""

import json

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.storages.journal import JournalFileBackend

from stabletune.results.table import Table

KEY = ("trial",)
cells = st.none() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False) | st.text(max_size=12) | st.booleans()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tables")
