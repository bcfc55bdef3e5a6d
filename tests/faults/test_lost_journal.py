"""What becomes of a search whose journal is taken away or spoiled under it, and of the lock that a dead one leaves."""

import csv
import os

import pytest

from stabletune import search
from stabletune.config import load_config
from stabletune.errors import StorageError
from stabletune.study.listener import Listener
from stabletune.study.sharing.storage import open_study


def replace_by_a_folder(journal):
    journal.unlink()
    journal.mkdir()


SPOILS = {
    "deleted": (lambda journal: journal.unlink(), "it is gone"),
    "replaced by a folder": (replace_by_a_folder, "it is gone"),
    "emptied": (lambda journal: journal.write_bytes(b""), r"it has 0 of its \d+ bytes"),
    "cut": (lambda journal: os.truncate(journal, journal.stat().st_size - 40), r"it has \d+ of its \d+ bytes"),
}


class Spoils(Listener):
    """Does something to the journal when the third trial has ended, having kept a copy."""

    def __init__(self, journal, spoil):
        self.left, self.journal, self.spoil = 3, journal, spoil

    def on_result(self, result):
        self.left -= 1
        if self.left == 0:
            self.copy = self.journal.read_bytes()
            self.spoil(self.journal)


def trials_of(folder):
    with (folder / "trials.csv").open(newline="") as file:
        return [int(row["trial"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize("kind", SPOILS)
def test_a_journal_that_is_spoiled_ends_the_search_with_a_line_and_one_that_is_restored_goes_on(
    write_config, tmp_path, kind
):
    spoil, words = SPOILS[kind]
    config, out = write_config(), tmp_path / "out"
    listener = Spoils(out / "study.journal", spoil)
    with pytest.raises(StorageError, match=rf"study\.journal: must stay as it is .*, but {words}\. Restore it"):
        search(config, output=out, executor="inline", listener=listener)
    assert trials_of(out) == [0, 1, 2]
    if (out / "study.journal").is_dir():
        (out / "study.journal").rmdir()
    (out / "study.journal").write_bytes(listener.copy)
    search(config, output=out, executor="inline", resume=True)
    assert trials_of(out) == list(range(6))


def test_a_lock_that_a_dead_process_left_is_removed_and_not_waited_for(write_config, tmp_path):
    config, out = write_config(), tmp_path / "out"
    search(config, output=out, executor="inline")
    lock = out / "study.journal.lock"
    lock.symlink_to(out / "study.journal")
    open_study(load_config(config, output=out), out / "study.journal", "again")
    assert not lock.is_symlink()
