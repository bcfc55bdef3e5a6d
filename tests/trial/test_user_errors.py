import csv

import pytest

from stabletune.results.rows import trial_row
from stabletune.results.store import RunFolder
from stabletune.results.table import Table
from stabletune.trial.user_errors import MOST_OF_A_MESSAGE, MOST_OF_A_REASON, MOST_OF_A_TRACEBACK, readable
from stabletune.trial.worker import run_trial
from tests.trial.specs import spec_of_file

RAISES = """
class Silent(Exception):
    def __str__(self):
        raise SystemExit(3)

class Wordless(Exception):
    def __str__(self):
        return None

class Stuck(Exception):
    def __reduce__(self):
        raise TypeError("no pickle of this")

def cyclic():
    first, second = ValueError("first"), KeyError("second")
    first.__cause__, second.__cause__ = second, first
    return first

def build(seed, device):
    raise EXCEPTION
"""
LINE = "(workload.py:20)"
SENTENCES = {
    "Silent()": f"Silent: its message cannot be had: SystemExit {LINE}",
    "Wordless()": f"Wordless: its message cannot be had: TypeError {LINE}",
    "Stuck('held')": f"Stuck: held {LINE}",
    "cyclic()": f"ValueError: first {LINE}",
    "RuntimeError()": f"RuntimeError: {LINE}",
    "OSError('r\\udce9sum\\udce9 \\0 \\x1b[31m')": f"OSError: r\\udce9sum\\udce9 \\x00 \\x1b[31m {LINE}",
    "OSError('no postgresql://me:hunter2@db/x')": f"OSError: no postgresql://me:***@db/x {LINE}",
}


@pytest.mark.parametrize("exception", SENTENCES)
def test_whatever_an_exception_says_becomes_a_sentence_with_the_users_line(tmp_path, exception):
    result = run_trial(spec_of_file(tmp_path, RAISES.replace("EXCEPTION", exception)))
    assert (result.status, result.reason) == ("failed", f"building: the workload raised {SENTENCES[exception]}")
    assert "workload.py" in result.traceback
    assert "hunter2" not in result.traceback


@pytest.mark.parametrize("message", ["'m' * 5_000_000", "':' * 500_000", "'\\udcff\\0\\x1b' * 100_000"])
def test_a_message_without_end_leaves_tables_that_can_be_read(tmp_path, message):
    result = run_trial(spec_of_file(tmp_path, RAISES.replace("EXCEPTION", f"RuntimeError({message})")))
    assert "letters left out" in result.reason
    assert len(result.reason) < 10 * MOST_OF_A_REASON < csv.field_size_limit()
    assert len(result.traceback) < 10 * MOST_OF_A_TRACEBACK
    folder = RunFolder(tmp_path / "run")
    folder.create({})
    folder.record(result)
    table = Table(folder.path / "trials.csv", ("trial",))
    assert table.rows()[0]["reason"] == " ".join(trial_row(result)["reason"].split())


@pytest.mark.parametrize("n_before", range(650, 760, 10))
def test_a_password_that_the_middle_left_out_begins_or_ends_in_is_not_shown(n_before):
    url = "postgresql://me:hunter-the-second@db/x"
    message = f"{'m' * n_before} {url} {'m' * 1_000} {url} {'m' * (720 - (n_before - 650))}"
    shown = readable(message, MOST_OF_A_MESSAGE)
    assert "letters left out" in shown and len(shown) < 1.1 * MOST_OF_A_MESSAGE
    assert "hunt" not in shown and "second" not in shown


def test_an_exception_of_a_library_names_the_users_line_that_led_to_it(tmp_path):
    source = """
    import torch

    def build(seed, device):
        return torch.zeros(2, 3) @ torch.zeros(2, 3)
    """
    result = run_trial(spec_of_file(tmp_path, source))
    assert result.reason.endswith("(2x3 and 2x3) (workload.py:5)")
