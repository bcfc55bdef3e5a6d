import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.study import StudyDirection
from optuna.trial import TrialState

from stabletune.space import FloatRange, SearchSpace
from stabletune.study.trials.sampler_view import Judged, SamplerView
from tests.study.trials.made_up import Reader

SPACE = SearchSpace({"lr": FloatRange(low=1e-4, high=1e-1, scale="log")})


def running(lr):
    study = optuna.create_study()
    study.add_trial(
        optuna.trial.create_trial(
            state=TrialState.RUNNING, params={"lr": lr}, distributions={"lr": FloatDistribution(1e-4, 1e-1, log=True)}
        )
    )
    return optuna.trial.Trial(study, 0)


@pytest.fixture
def reader():
    return Reader(seed=0)


@pytest.fixture
def view(reader):
    judged = [Judged({"lr": 1e-3}, 1.0, -0.5), Judged({"lr": 7.0}, 0.0, -0.5)]
    return SamplerView(reader, SPACE, [StudyDirection.MINIMIZE], judged=judged, under_way=[running(1e-2)])


def test_a_sampler_sees_the_trials_inside_the_space_as_they_are_judged_and_those_under_way(view, reader):
    view.propose()
    assert reader.finished == [(1e-3, 1.0, -0.5)]
    assert reader.running == [1e-2]


def test_a_proposal_runs_until_it_ends_and_is_then_seen_as_judged(view, reader):
    here, params = view.propose()
    view.call(here, 17)
    view.propose()
    assert reader.running == [1e-2, params["lr"]]
    view.end(17, Judged(params, 0.2, 0.4))
    view.propose()
    assert reader.finished == [(1e-3, 1.0, -0.5), (params["lr"], 0.2, 0.4)]
    assert params["lr"] not in reader.running


def test_a_trial_that_ran_before_the_view_was_built_ends_under_its_number_of_the_search(view, reader):
    view.end(0, Judged({"lr": 1e-2}, 0.2, 0.4))
    view.propose()
    assert reader.running == []
    assert reader.finished[1:] == [(1e-2, 0.2, 0.4)]


def test_a_trial_that_failed_is_forgotten(view, reader):
    view.end(0, None)
    view.propose()
    assert (reader.running, len(reader.finished)) == ([], 1)
