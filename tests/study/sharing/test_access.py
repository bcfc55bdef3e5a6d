"""One driver at a time, and a server that goes away."""

import threading

import optuna
import pytest
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError

from stabletune.errors import StorageError
from stabletune.study.sharing.access import Alone, SharedDatabase, reason


def access_to(url, **options):
    return SharedDatabase(url, "the database", "some study", **options)


def test_an_action_waits_for_that_of_another_driver_and_not_for_its_own(server, database):
    mine, its = access_to(database), access_to(database)
    order = []

    def theirs():
        its.exclusively(lambda: order.append("theirs"))

    def ours():
        other.start()
        mine.exclusively(lambda: order.append("inner"))
        server.wait_for_a_waiting_lock()
        order.append("outer")

    other = threading.Thread(target=theirs)
    mine.exclusively(ours)
    other.join()
    assert order == ["inner", "outer", "theirs"]


def test_an_action_that_waited_sees_what_was_done_whatever_the_database_isolates(server, new_database):
    url = new_database("open-sesame").format("open-sesame")
    server.isolate(make_url(url).database, "repeatable read")
    mine, its = access_to(url), access_to(url)
    study = mine.exclusively(lambda: optuna.create_study(storage=mine.open_storage()))
    same = its.exclusively(lambda: optuna.load_study(storage=its.open_storage(), study_name=study.study_name))
    seen = []
    other = threading.Thread(target=lambda: its.exclusively(lambda: seen.append(same.user_attrs)))

    def write():
        other.start()
        server.wait_for_a_waiting_lock()
        study.set_user_attr("written", True)

    mine.exclusively(write)
    other.join()
    assert seen == [{"written": True}]


def test_what_an_action_did_before_it_failed_is_undone(database):
    mine = access_to(database)
    study = mine.exclusively(lambda: optuna.create_study(storage=mine.open_storage()))
    mine.leave_marks_in(study)

    def fail():
        study.tell(study.ask(), 1.0)
        assert len(study.trials) == 1
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        mine.exclusively(fail)
    assert study.trials == []
    assert mine.exclusively(study.ask).number == 0


def test_studies_of_other_names_do_not_wait(database):
    other = SharedDatabase(database, "the database", "another study")
    assert access_to(database).exclusively(lambda: other.exclusively(lambda: 3)) == 3


def test_an_action_that_raises_gives_the_lock_back(database):
    mine = access_to(database)
    with pytest.raises(ZeroDivisionError):
        mine.exclusively(lambda: 1 / 0)
    assert access_to(database).exclusively(lambda: "free") == "free"


def test_an_action_that_a_restart_cuts_off_is_run_again_under_the_lock(server, database, caplog):
    mine = access_to(database)
    storage = optuna.storages.RDBStorage(database)
    tries = []

    def action():
        tries.append(len(storage.get_all_studies()))
        if len(tries) == 1:
            server.stop()
            server.start()
        return storage.get_all_studies()

    assert mine.exclusively(action) == []
    assert len(tries) == 2
    assert not caplog.records


def test_an_action_that_outlives_its_lock_is_run_again_under_it(server, database, caplog):
    mine, its = access_to(database), access_to(database)
    order = []

    def action():
        order.append("mine")
        if len(order) == 1:
            server.cut_connections(make_url(database).username)
            its.exclusively(lambda: order.append("its"))
        return len(order)

    assert mine.exclusively(action) == 3
    assert order == ["mine", "its", "mine"]
    assert not caplog.records


def test_an_action_that_the_server_ended_for_its_silence_is_run_again(server, database, caplog):
    mine, its = access_to(database, silence=1.0), access_to(database)
    order = []

    def action():
        order.append("mine")
        if len(order) == 1:
            its.exclusively(lambda: order.append("its"))
        return len(order)

    assert mine.exclusively(action) == 3
    assert order == ["mine", "its", "mine"]
    assert not caplog.records


def test_an_action_that_is_done_when_the_server_goes_away_is_done_again(server, database, caplog):
    mine = access_to(database)
    done = []

    def action():
        done.append("done")
        if len(done) == 1:
            server.stop()
            server.start()
        return "the result"

    assert mine.exclusively(action) == "the result"
    assert done == ["done", "done"]
    assert mine.exclusively(lambda: "the next") == "the next"
    assert not caplog.records


def test_a_server_that_stays_away_is_said_once_and_not_waited_for_again(server, database):
    mine = access_to(database, patience=0.5)
    mine.exclusively(lambda: None)
    server.stop()
    try:
        with pytest.raises(StorageError, match=r"storage: the database must answer .* OperationalError") as caught:
            mine.exclusively(lambda: None)
        assert mine.is_lost
        with pytest.raises(StorageError):
            mine.exclusively(lambda: None)
    finally:
        server.start()
    assert "open-sesame" not in str(caught.value)


def test_what_was_never_there_is_not_waited_for(server, database):
    with pytest.raises(OperationalError):
        access_to(database.replace(str(server.port), "1")).exclusively(lambda: None)


def test_alone_nothing_is_asked():
    assert Alone().exclusively(lambda: 3) == 3


@pytest.mark.parametrize(
    "url",
    ["postgresql://me:p%40ss%2Fword@host/db", "postgresql://me@host/db?password=p%40ss%2Fword"],
    ids=["in its place", "in the query"],
)
@pytest.mark.parametrize("said", ["no p@ss/word\nhere", "no p%40ss%2Fword"])
def test_what_a_client_says_is_shown_without_the_password(url, said):
    assert reason(ValueError(said), url) == "ValueError: no ***"
