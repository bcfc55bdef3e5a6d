"""A driver whose connection breaks while it begins the proof with the lock in its hands."""

from sqlalchemy.engine import make_url

from stabletune.config import load_config
from stabletune.results.store import RunFolder
from stabletune.study.driver import Driver
from stabletune.study.listener import Listener
from stabletune.study.optuna_study import SearchStudy
from stabletune.study.trials.warm_start import Lessons
from tests.study.trials.made_up import made_up

SMALL = ("trials: 8", "trials: 3"), ("confirm_seeds: 3", "confirm_seeds: 1")


class CutOffOnce(SearchStudy):
    """A study whose connections are cut when the runs of the proof are read for the first time."""

    cut = None

    def attributes(self, prefix):
        cut, self.cut = self.cut, None
        if cut is not None:
            cut()
        return super().attributes(prefix)


def test_a_connection_that_breaks_as_the_proof_is_entered_costs_nothing(
    server, database, write_shared_config, tmp_path
):
    config = load_config(write_shared_config(database, *SMALL))
    drivers, studies = [], []
    for name in ("mine", "its"):
        folder = RunFolder(tmp_path / name)
        folder.create(config.resolved())
        studies.append(CutOffOnce(config, tmp_path / "unused", beginning="anew or shared", driver=name))
        drivers.append(Driver(config, studies[-1], folder, lessons=Lessons(), listener=Listener()))
    mine, its = drivers
    for _ in range(3):
        its.on_result(made_up(its.next_spec()))
    studies[0].cut = lambda: server.cut_connections(make_url(database).username)
    spec = mine.next_spec()
    mine.raise_what_stopped_it()
    for study in studies:
        study.leave()
    assert studies[0].cut is None
    assert spec.purpose == "baseline"
