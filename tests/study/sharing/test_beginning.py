"""A study that was created but not begun: its driver was killed, or lost its connection, in between."""

import optuna
import psycopg
import pytest

from stabletune.config import load_config
from stabletune.errors import OutputFolderError
from stabletune.study.optuna_study import SearchStudy

BREAKS_ONCE = """
    CREATE SEQUENCE attributes_written;
    CREATE FUNCTION break_once() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF nextval('attributes_written') = 1 THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER break_once BEFORE INSERT ON study_user_attributes FOR EACH ROW EXECUTE FUNCTION break_once();
"""


def open_study(config, tmp_path, beginning):
    study = SearchStudy(config, tmp_path / "unused", beginning=beginning, driver="mine")
    study.leave()
    return study


def test_the_next_driver_begins_what_a_killed_one_created(database, write_shared_config, tmp_path):
    config = load_config(write_shared_config(database))
    optuna.create_study(storage=database, study_name=config.name)
    study = open_study(config, tmp_path, "anew or shared")
    assert study.attribute("config", {})["search_space"] == config.resolved()["search_space"]


@pytest.mark.parametrize("created", [{"directions": ["minimize"] * 2}, {}], ids=["other objectives", "with a trial"])
def test_what_something_else_created_under_the_name_is_refused(database, write_shared_config, tmp_path, created):
    config = load_config(write_shared_config(database))
    study = optuna.create_study(storage=database, study_name=config.name, **created)
    if not created:
        study.ask()
    with pytest.raises(OutputFolderError, match=r"study 'shared' in storage must say .* of another version"):
        open_study(config, tmp_path, "anew or shared")


@pytest.mark.parametrize("beginning", ["anew", "anew or shared"])
def test_a_beginning_whose_connection_breaks_is_gone_on_with(database, write_shared_config, tmp_path, beginning):
    config = load_config(write_shared_config(database))
    optuna.storages.RDBStorage(database)
    with psycopg.connect(database.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(BREAKS_ONCE)
    study = open_study(config, tmp_path, beginning)
    assert study.attribute("config", None) is not None
    with pytest.raises(OutputFolderError, match="must not hold a study named 'shared' yet"):
        open_study(config, tmp_path, "anew")
