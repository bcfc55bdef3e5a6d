"""A driver whose connection breaks while it has the lock, or just before it gives it back."""

import pytest
from sqlalchemy.engine import make_url

from stabletune.config import load_config
from stabletune.results.store import RunFolder
from stabletune.study.driver import Driver
from stabletune.study.listener import Listener
from stabletune.study.optuna_study import SearchStudy
from stabletune.study.trials.warm_start import Lessons
from tests.study.trials.made_up import made_up

SMALL = ("trials: 8", "trials: 3"), ("confirm_seeds: 3", "confirm_seeds: 1")


class CutOff(SearchStudy):
    """A study whose connections are cut once, at one of its moments."""

    cut_at, cut = "", None

    def attributes(self, prefix):
        self._cut_at("reading the proof")
        return super().attributes(prefix)

    def show(self, number, judged):
        super().show(number, judged)
        self._cut_at("having kept a trial")

    def _cut_at(self, moment):
        if moment == self.cut_at:
            self.cut_at = "nowhere"
            self.cut()


class CuttingAtAStart(Listener):
    """Cuts the connections when the second run is handed out."""

    def __init__(self, cut):
        self._cut, self.started = cut, []

    def on_start(self, spec):
        self.started.append(spec.number)
        if len(self.started) == 2:
            self._cut()


@pytest.fixture
def begin(database, write_shared_config, tmp_path):
    """Begin a driver on the study; each signs off at the end."""
    config = load_config(write_shared_config(database, *SMALL))
    studies = []

    def begin(name, listener=None):
        folder = RunFolder(tmp_path / name)
        folder.create(config.resolved())
        study = CutOff(config, tmp_path / "unused", beginning="anew or shared", driver=name)
        studies.append(study)
        return study, folder, Driver(config, study, folder, lessons=Lessons(), listener=listener or Listener())

    yield begin
    for study in studies:
        study.leave()


@pytest.fixture
def cut(server, database):
    return lambda: server.cut_connections(make_url(database).username)


def test_a_connection_that_breaks_as_the_proof_is_entered_costs_nothing(begin, cut):
    study, _, mine = begin("mine")
    _, _, its = begin("its")
    for _ in range(3):
        its.on_result(made_up(its.next_spec()))
    study.cut, study.cut_at = cut, "reading the proof"
    spec = mine.next_spec()
    mine.raise_what_stopped_it()
    assert study.cut_at == "nowhere"
    assert spec.purpose == "baseline"


def test_a_trial_that_was_taken_when_the_lock_was_lost_is_run_once(begin, cut):
    listener = CuttingAtAStart(cut)
    study, _, driver = begin("mine", listener)
    for n in range(3):
        spec = driver.next_spec()
        driver.raise_what_stopped_it()
        assert spec.number == n
        driver.on_result(made_up(spec))
    assert listener.started == [0, 1, 2]
    assert driver.next_spec().purpose == "baseline"
    assert len(study.trials()) == 3


def test_a_trial_that_was_kept_when_the_lock_was_lost_is_kept_once(begin, cut):
    study, folder, driver = begin("mine")
    study.cut, study.cut_at = cut, "having kept a trial"
    for n in range(3):
        driver.on_result(made_up(driver.next_spec()))
        driver.raise_what_stopped_it()
        assert [row["trial"] for row in folder.trials.rows()] == [*range(n + 1)]
    assert study.cut_at == "nowhere"
    assert driver.next_spec().purpose == "baseline"
