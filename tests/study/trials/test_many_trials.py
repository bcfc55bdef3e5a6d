"""What a search does for each trial when there are many: the same as ever up to two hundred, no more beyond."""

import sys

import optuna
import pytest
from optuna.storages.journal import JournalStorage
from optuna.trial import TrialState

from stabletune.config import load_config
from stabletune.errors import RepeatedFailures
from stabletune.results.store import RunFolder
from stabletune.study.distributions import distributions, is_inside, nearest_params
from stabletune.study.failures import ended
from stabletune.study.feasibility import CONSTRAINT, LARGEST, constraint_of
from stabletune.study.listener import Listener
from stabletune.study.optuna_study import SearchStudy
from stabletune.study.prediction.outlook import Outlook
from stabletune.study.trials.search_phase import SearchPhase
from stabletune.study.trials.warm_start import Lessons
from stabletune.study.trials.wide_search import ORDINARY, trials_between_fits
from tests.study.trials.made_up import Reader, made_up

MANY = ("trials: 6", "trials: 240")
CHEAP = ("budget:", "sampler: random\nobjective: {source: eval}\nbudget:")
CHEAP_TPE = ("budget:", "objective: {source: eval}\nbudget:")


@pytest.fixture
def begin(write_config, tmp_path):
    def begin(*changes):
        config = load_config(write_config(*changes), output=tmp_path / "out")
        folder = RunFolder(config.output)
        folder.create(config.resolved())
        study = SearchStudy(config, folder.journal_path)
        return config, folder, SearchPhase(config, study, folder, lessons=Lessons(), listener=Listener())

    return begin


def test_a_trial_of_several_seeds_that_has_ended_is_not_shown_as_running_until_the_next_fit(begin):
    _, _, phase = begin(("trials: 6", "trials: 240, seeds_per_trial: 2"), CHEAP_TPE)
    reader = phase._study._judging = Reader(seed=0)
    while phase.n_finished < 39:
        phase.on_result(made_up(phase.next_spec()))
    under_way = [phase.next_spec() for _ in range(ORDINARY - 39 + 2)]  # the last of them has a seed left
    phase.on_result(made_up(under_way.pop(0)))
    ending, *_ = under_way[1:3]
    for spec in under_way[1:3]:
        phase.on_result(made_up(spec))
    assert phase.n_finished == 40
    assert phase.next_spec().seed != ending.seed  # now one more runs, and a fit is no longer due
    phase.next_spec()
    assert ending.params["lr"] not in reader.running
    assert ending.params["lr"] in [lr for lr, _, _ in reader.finished]


def proposed_anew(config, phase, sampler, under_way):
    """What the sampler proposes if everything is fitted and judged for this proposal alone."""
    outlook, space = Outlook(config, phase.observations), config.search_space
    stored = dict(distributions(space).values())
    past = optuna.create_study(sampler=sampler)
    settings = {run.number: known for known, run in phase.judged_trials}
    seen = outlook.trials
    for run, value, survival in zip(seen, outlook.values(seen), outlook.survival(seen), strict=True):
        if is_inside(space, settings[run.number]):
            told = (outlook.untrained, run.severity) if run.has_spiked else (value, constraint_of(survival))
            past.add_trial(
                optuna.trial.create_trial(
                    params=nearest_params(space, settings[run.number]),
                    distributions=stored,
                    value=min(told[0], LARGEST),
                    constraints={CONSTRAINT: told[1]},
                )
            )
    for spec in under_way:
        past.add_trial(
            optuna.trial.create_trial(
                state=TrialState.RUNNING, params=nearest_params(space, spec.params), distributions=stored
            )
        )
    params = past.ask(stored).params
    return params["lr"], 1.0 - params["one_minus_beta2"]


def test_a_search_of_ordinary_size_proposes_as_if_all_were_fitted_for_each_proposal(begin):
    config, _, phase = begin(("trials: 6", "trials: 40"))
    sampler = optuna.samplers.TPESampler(seed=config.seed, multivariate=True)
    phase.on_result(made_up(phase.next_spec()))
    under_way = []
    while True:
        expected = proposed_anew(config, phase, sampler, under_way)
        spec = phase.next_spec()
        if spec is None:
            break
        assert (spec.params["lr"], spec.params["beta2"]) == expected
        under_way.append(spec)
        if len(under_way) == 3:
            phase.on_result(made_up(under_way.pop(0)))
    assert phase.n_finished == 38


@pytest.mark.slow
def test_models_are_fitted_after_each_trial_up_to_two_hundred_and_after_every_tenth_beyond(begin):
    _, _, phase = begin(MANY, CHEAP)
    fitted_at, outlook = [], None
    while not phase.is_over:
        spec = phase.next_spec()
        if phase.outlook is not outlook:
            outlook = phase.outlook
            fitted_at.append(phase.n_finished)
        phase.on_result(made_up(spec))
    assert fitted_at == [*range(ORDINARY + 1), 210, 220, 230]
    assert len(phase.outlook.trials) == 100
    assert phase.outlook.trials[-1].number == 239


def test_between_fits_ten_trials_end_or_a_tenth_of_those_that_run_but_no_more_than_a_quarter_of_the_finished():
    assert trials_between_fits(ORDINARY - 5, 5) == 1
    assert trials_between_fits(ORDINARY, 1) == 10
    assert trials_between_fits(5000, 500) == 50
    assert [trials_between_fits(n, 500) for n in (0, 8, 40)] == [1, 2, 10]


def test_a_trial_lists_no_study_and_is_appended_to_files_that_are_not_written_anew(begin):
    _, folder, phase = begin(("trials: 6", "trials: 20"))
    listed = []

    def watch(frame, event, argument):
        is_listing = event == "call" and frame.f_code is JournalStorage.get_all_trials.__code__
        if is_listing:
            listed.append(frame)

    files = (folder.journal_path, folder.trials.path)
    phase.on_result(made_up(phase.next_spec()))
    before = [(path.stat().st_ino, path.read_bytes()) for path in files]
    sys.setprofile(watch)
    try:
        while not phase.is_over:
            phase.on_result(made_up(phase.next_spec()))
    finally:
        sys.setprofile(None)
    assert listed == []
    for path, (file, content) in zip(files, before, strict=True):
        assert path.stat().st_ino == file
        assert path.read_bytes().startswith(content)
        assert len(path.read_bytes()) > len(content)


def test_what_is_known_of_a_finished_trial_is_in_memory_once_for_driver_and_study(begin):
    _, _, phase = begin(("trials: 6", "trials: 4"))
    while not phase.is_over:
        phase.on_result(made_up(phase.next_spec()))
    stored = phase._study.records()
    assert len(stored) == 4
    assert all(known is record for known, record in zip(phase._finished, stored, strict=True))


@pytest.mark.parametrize(("n_running", "n_failures"), [(1, 5), (40, 5), (80, 8)])
def test_a_search_ends_once_five_trials_or_a_tenth_of_those_that_run_have_failed_in_a_row(begin, n_running, n_failures):
    _, _, phase = begin(MANY, CHEAP)
    phase.on_result(made_up(phase.next_spec()))
    specs = [phase.next_spec() for _ in range(n_running)]
    for _ in range(n_failures - 1):
        phase.on_result(ended(specs.pop(0), "out of memory"))
        specs.append(phase.next_spec())
    with pytest.raises(RepeatedFailures, match=f"at most {n_failures - 1} trials may fail in a row"):
        phase.on_result(ended(specs.pop(0), "out of memory"))
