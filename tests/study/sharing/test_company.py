"""Who of the drivers of a study lives, and what each sees of the others."""

import numpy as np
import optuna
import pytest

from stabletune.config import load_config
from stabletune.records import Progress, TrialResult
from stabletune.results.store import RunFolder
from stabletune.study.listener import Listener
from stabletune.study.optuna_study import SearchStudy
from stabletune.study.proof.confirm import ConfirmationPhase
from stabletune.study.proof.prospects import Candidate
from stabletune.study.sharing.drivers import SECONDS_BETWEEN_BEATS, SECONDS_OF_GRACE, Drivers
from stabletune.study.specs import trial_spec
from stabletune.study.trials.search_phase import SearchPhase
from stabletune.study.trials.warm_start import Lessons
from tests.study.prediction.seen import seen


class Beating:
    """An entry of a driver that beats when told to, in a study in memory."""

    def __init__(self, study, name):
        self._study, self._name, self._beats = study, name, 0

    def beat(self, *, has_left=False):
        self._beats += 1
        self._study.set_user_attr(f"driver:{self._name}", {"number": 1, "has_left": has_left, "runs": []})
        self._study.set_user_attr(f"beats_of_driver:{self._name}", self._beats)


@pytest.fixture
def company():
    study = optuna.create_study()
    return Drivers(study, "me"), Beating(study, "other")


def look_for(me, seconds, *, since=0.0, each=lambda: None):
    for n in range(int(seconds / SECONDS_BETWEEN_BEATS) + 1):
        each()
        me.look(since + n * SECONDS_BETWEEN_BEATS)


def test_a_driver_whose_counter_stands_for_the_time_of_grace_is_dead(company):
    me, other = company
    other.beat()
    look_for(me, SECONDS_OF_GRACE - SECONDS_BETWEEN_BEATS)
    assert me.others_alive() == {"other"}
    look_for(me, SECONDS_OF_GRACE)
    assert me.others_alive() == set()


def test_a_driver_that_beats_lives_and_one_that_comes_back_lives_again(company):
    me, other = company
    look_for(me, 10 * SECONDS_OF_GRACE, each=other.beat)
    assert me.others_alive() == {"other"}
    look_for(me, SECONDS_OF_GRACE, since=10 * SECONDS_OF_GRACE)
    assert me.others_alive() == set()
    other.beat()
    assert me.others_alive() == {"other"}


def test_a_time_in_which_nobody_could_look_proves_nothing(company):
    me, other = company
    other.beat()
    me.look(0.0)
    me.look(100 * SECONDS_OF_GRACE)
    assert me.others_alive() == {"other"}


def test_a_driver_that_signed_off_is_gone_at_once(company):
    me, other = company
    other.beat()
    me.look(0.0)
    other.beat(has_left=True)
    assert me.others_alive() == set()


@pytest.fixture
def open_study(database, write_shared_config, tmp_path):
    """Open the study as one of its drivers; each signs off at the end."""
    config = load_config(write_shared_config(database))
    opened = []

    def open_as(name):
        opened.append(SearchStudy(config, tmp_path / "unused", beginning="anew or shared", driver=name))
        return opened[-1]

    yield open_as
    for study in opened:
        study.leave()


def test_a_trial_is_unfinished_once_its_driver_has_gone_and_not_before(open_study):
    mine, its = open_study("mine"), open_study("its")
    its.add_baseline()
    assert mine.unfinished(held=()) == []
    assert mine.n_elsewhere(held=()) == 1
    its.leave()
    assert mine.unfinished(held=()) == [0]
    assert mine.n_elsewhere(held=()) == 0


def test_a_driver_that_goes_on_under_its_name_finds_its_own_trial_at_once(open_study):
    before = open_study("mine")
    before.add_baseline()
    before.drivers.fall_silent()
    assert open_study("mine").unfinished(held=()) == [0]


def test_a_result_of_a_trial_that_another_driver_took_over_is_not_stored(open_study):
    mine, its = open_study("mine"), open_study("its")
    number = mine.add_baseline()
    its.take_up(number)
    spec = trial_spec(load_config(its._config.path), number, {})
    result = TrialResult(spec=spec, status="failed", reason="for the test", losses=[])
    assert mine.tell(result, {"row": {"steps": 7}}, worst=None) is False
    assert mine.records() == []
    assert its.tell(result, {"row": {"steps": 9}}, worst=None) is True
    assert mine.records() == [{"row": {"steps": 9}}]
    assert mine.abandoned_steps == 7


def test_a_run_of_a_trial_that_another_driver_took_over_is_ended(open_study, tmp_path):
    mine, its = open_study("mine"), open_study("its")
    config = load_config(mine._config.path)
    folder = RunFolder(tmp_path / "mine")
    folder.create(config.resolved())
    phase = SearchPhase(config, mine, folder, lessons=Lessons(), listener=Listener())
    spec = phase.next_spec()
    names = {"number": spec.number, "purpose": spec.purpose, "seed": spec.seed}
    progress = Progress(**names, step=1, steps=spec.steps, loss=1.0, sharpness_ratio=None, v_hat_staleness=None)
    phase.refresh()
    assert phase.on_progress(progress)
    its.take_up(spec.number)
    phase.refresh()
    assert not phase.on_progress(progress)
    phase.on_abandoned(spec, 1)
    assert phase.next_spec().number == 1


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "nsga2", "cmaes"])
def test_two_drivers_never_propose_the_same(database, write_shared_config, tmp_path, sampler):
    config = load_config(write_shared_config(database, ("budget:", f"sampler: {sampler}\nbudget:")))
    studies = [
        SearchStudy(config, tmp_path / "unused", beginning="anew or shared", driver=name) for name in ("mine", "its")
    ]
    proposed = [studies[n % 2].ask(lambda: []) for n in range(8)]
    for study in studies:
        study.leave()
    assert [number for number, _ in proposed] == list(range(8))
    assert len({values["lr"] for _, values in proposed}) == 8


def test_seeds_are_drawn_once_by_whichever_driver(open_study):
    mine, its = open_study("mine"), open_study("its")
    assert [mine.fresh_seed(), its.fresh_seed(), mine.fresh_seed()] == [1, 2, 3]
    assert mine.trial_seeds(2) == its.trial_seeds(2) == [4, 5]


def test_the_runs_of_a_proof_are_dealt_out_once(open_study, tmp_path):
    studies = [open_study("mine"), open_study("its")]
    config = load_config(studies[0]._config.path)
    folders = [RunFolder(tmp_path / name) for name in ("mine", "its")]
    for folder in folders:
        folder.create(config.resolved())
    candidates = [Candidate(n, {}, seen(place=(0.1 * n, 0.1), curve=[(39, -1.0)], number=n)) for n in (1, 2)]
    dealt = []
    for study, folder in zip(studies, folders, strict=True):
        phase = ConfirmationPhase(config, study, folder, candidates, trials=[], others=[], listener=Listener())
        while (spec := phase.next_spec()) is not None:
            dealt.append((spec.number, spec.purpose, spec.seed))
    assert [purpose for _, purpose, _ in dealt] == ["baseline", "confirmation", "confirmation"]
    assert len({seed for _, _, seed in dealt}) == 3
    studies[0].leave()
    phase.refresh()
    assert phase.next_spec().purpose == "baseline"  # those that the first one had are dealt out again


def test_a_proof_run_that_is_stored_twice_is_kept_once(open_study, tmp_path):
    study = open_study("mine")
    config = load_config(study._config.path)
    folder = RunFolder(tmp_path / "mine")
    folder.create(config.resolved())
    candidate = Candidate(1, {}, seen(place=(0.1, 0.1), curve=[(39, -1.0)], number=1))
    phase = ConfirmationPhase(config, study, folder, [candidate], trials=[], others=[], listener=Listener())
    result = TrialResult(spec=phase.next_spec(), status="failed", reason="for the test", losses=np.zeros(0))
    for _ in range(2):
        phase.on_result(result)
    assert len(phase.runs) == len(study.attributes("proof_run:")) == len(folder.confirmations.rows()) == 1
