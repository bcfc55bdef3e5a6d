"""What a sampler knows of the trials of several drivers when there are so many that models are fitted less often."""

import pytest

from stabletune.config import load_config
from stabletune.results.store import RunFolder
from stabletune.study.listener import Listener
from stabletune.study.optuna_study import SearchStudy
from stabletune.study.trials.search_phase import SearchPhase
from stabletune.study.trials.warm_start import Lessons
from stabletune.study.trials.wide_search import ORDINARY
from tests.study.trials.made_up import Reader, made_up

WIDE = ("trials: 8", "trials: 240"), ("budget:", "objective: {source: eval}\nbudget:")


@pytest.mark.slow
def test_a_sampler_sees_what_any_driver_has_finished_since_the_last_fit(database, write_shared_config, tmp_path):
    config = load_config(write_shared_config(database, *WIDE))
    lessons = Lessons(to_try=tuple({"lr": 1e-3, "beta2": 0.95} for _ in range(ORDINARY)))
    phases, readers, studies = [], [], []
    for name in ("mine", "its"):
        folder = RunFolder(tmp_path / name)
        folder.create(config.resolved())
        studies.append(SearchStudy(config, tmp_path / "unused", beginning="anew or shared", driver=name))
        readers.append(Reader(seed=len(readers)))
        studies[-1]._judging = readers[-1]
        phases.append(SearchPhase(config, studies[-1], folder, lessons=lessons, listener=Listener()))
    mine, its = phases
    for _ in range(10):
        mine.on_result(made_up(mine.next_spec()))
    for _ in range(ORDINARY - 9):
        mine.next_spec()
    own, asked = mine.next_spec(), mine.next_spec()
    its.refresh()
    theirs = its.next_spec()
    its.on_result(made_up(theirs))
    mine.refresh()
    mine.on_result(made_up(own))
    next_one = mine.next_spec()
    finished = [lr for lr, _, _ in readers[0].finished]
    for study in studies:
        study.leave()
    assert len({own.number, asked.number, theirs.number, next_one.number} - {*range(ORDINARY + 1)}) == 4
    assert own.params["lr"] in finished
    assert theirs.params["lr"] in finished
    assert asked.params["lr"] in readers[0].running
