"""A connection that breaks at each message of what a driver does: it is done once, and whole, or it is not done."""

import numpy as np
import pytest
from optuna.trial import TrialState

from stabletune.config import load_config
from stabletune.records import TrialResult
from stabletune.study.optuna_study import SearchStudy
from stabletune.study.specs import trial_spec
from tests.study.sharing.proxy import Proxy

VALUES = {"lr": 1e-2, "beta2": 0.95}


@pytest.fixture
def proxy(server):
    proxy = Proxy(server.port)
    yield proxy
    proxy.close()


@pytest.fixture
def studies(server, proxy, database, write_shared_config, tmp_path):
    """The study as a driver behind the proxy has it, and as one has it that reaches the server."""
    urls = database.replace(f":{server.port}/", f":{proxy.port}/"), database
    opened = [
        SearchStudy(load_config(write_shared_config(url)), tmp_path / "unused", beginning="anew or shared", driver=name)
        for url, name in zip(urls, ("mine", "its"), strict=True)
    ]
    opened[0].drivers.fall_silent()  # what it sends is counted
    yield opened
    for study in opened:
        study.leave()


def broken_at_each_moment(proxy, act, *, is_passed_on, meanwhile=lambda: None, every=1):
    """What came of it each time, until it needs fewer messages."""
    n, came_of_it = 0, []
    while True:
        proxy.break_at(n, is_passed_on=is_passed_on, meanwhile=meanwhile)
        came_of_it.append(act())
        if not proxy.has_broken:
            assert n > 5 * every
            return came_of_it
        n += every


@pytest.mark.slow
@pytest.mark.parametrize("is_passed_on", [False, True], ids=["never sent", "not answered"])
def test_what_is_counted_is_counted_once(proxy, studies, is_passed_on):
    mine, its = studies
    seen_by_it = []
    came_of_it = broken_at_each_moment(
        proxy, mine.fresh_seed, is_passed_on=is_passed_on, meanwhile=lambda: seen_by_it.append(its.fresh_seed())
    )
    assert sorted(came_of_it + seen_by_it) == [*range(1, len(came_of_it) + len(seen_by_it) + 1)]


@pytest.mark.slow
@pytest.mark.parametrize("is_passed_on", [False, True], ids=["never sent", "not answered"])
def test_a_trial_is_made_once_and_told_once(proxy, studies, is_passed_on):
    mine, its = studies
    made = broken_at_each_moment(
        proxy,
        lambda: mine.exclusively(lambda: mine.add(VALUES))[0],
        is_passed_on=is_passed_on,
        meanwhile=its.fresh_seed,
        every=3,
    )
    assert [trial.number for trial in its.trials()] == made == [*range(len(made))]
    made += [mine.add(VALUES)[0] for _ in range(20)]
    left = iter(made)
    told = broken_at_each_moment(proxy, lambda: tell(mine, next(left)), is_passed_on=is_passed_on, every=6)
    assert told == [True] * len(told)
    finished = [trial for trial in its.trials() if trial.state == TrialState.COMPLETE]
    assert [trial.user_attrs["record"]["row"]["trial"] for trial in finished] == made[: len(told)]
    assert its.abandoned_steps == 0


def test_a_trial_that_is_told_again_is_told_the_same(proxy, studies):
    mine, its = studies
    number, _ = mine.add(VALUES)
    proxy.break_at(40, is_passed_on=False)
    assert tell(mine, number, status="pruned")
    assert proxy.has_broken
    (trial,) = its.trials()
    assert (trial.state, trial.value, trial.intermediate_values) == (TrialState.PRUNED, 1.0, {3: 1.0})


def test_the_record_of_a_trial_is_read_when_the_server_is_back(proxy, studies):
    mine, _ = studies
    number, _ = mine.add(VALUES)
    assert tell(mine, number)
    proxy.break_at(0, is_passed_on=False)
    assert mine.record(number)["row"]["steps"] == 3
    assert proxy.has_broken


def tell(study, number, status="completed"):
    result = TrialResult(
        spec=trial_spec(study._config, number, VALUES),
        status=status,
        reason="for the test",
        losses=np.ones(3),
        objective=1.0,
        risk=0.2,
    )
    return study.tell(result, {"row": {"trial": number, "steps": 3}}, worst=None)
