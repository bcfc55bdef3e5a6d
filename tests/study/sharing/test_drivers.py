"""Several drivers on one study in PostgreSQL: no work twice, one outcome, and what a dead driver left is put right."""

import signal

import optuna
import pytest
from sqlalchemy.engine import make_url

from stabletune.errors import ConfigError, OutputFolderError
from stabletune.study.listener import Listener
from tests.study.running import rows_of, run
from tests.study.sharing.drivers import end, found, repeated, runs_trained, wait_for


class TakingBack(Listener):
    def __init__(self, storage):
        self._storage = storage

    def on_start(self, spec):
        if spec.number == 1:
            optuna.delete_study(study_name="shared", storage=self._storage)


class Noting(Listener):
    def __init__(self):
        self.said = []

    def on_note(self, sentence):
        self.said.append(sentence)


def check_whole(trials, proofs, recommended):
    """Every trial is there once, and the proof spent no run twice."""
    assert [int(row["trial"]) for row in trials] == list(range(8))
    assert not repeated(trials, "lr", "beta2")
    assert not repeated(proofs, "candidate", "purpose", "seed")
    assert recommended["evidence"]["confirm_seeds"] == 3
    assert recommended["evidence"]["training_steps_spent"] == sum(int(row["steps"]) for row in trials + proofs)


@pytest.mark.slow
@pytest.mark.parametrize("n_drivers", [2, 3])
def test_drivers_share_the_trials_and_the_proof_and_end_with_one_outcome(
    start, database, write_shared_config, tmp_path, n_drivers
):
    config = write_shared_config(database, n_drivers=n_drivers)
    drivers = [start(config, tmp_path / f"out{n}", "--resume") for n in range(n_drivers)]
    for code, said in [end(driver) for driver in drivers]:
        assert code == 0, said
    outcomes = [found(tmp_path / f"out{n}") for n in range(n_drivers)]
    assert all(outcome == outcomes[0] for outcome in outcomes)
    trials, proofs, recommended = outcomes[0]
    check_whole(trials, proofs, recommended)
    trained = runs_trained(tmp_path)
    assert len({pid for pid, _ in trained}) == n_drivers
    assert sum(seed == "0" for _, seed in trained) == 8
    assert len(trained) == len(trials) + len(proofs)


@pytest.mark.slow
@pytest.mark.parametrize("n", [4, 10], ids=["in the search", "in the proof"])
def test_what_a_killed_driver_was_at_is_done_by_another(start, database, write_shared_config, tmp_path, n):
    config = write_shared_config(database)
    (tmp_path / f"dies-in-{n}").touch()
    code, said = end(start(config, tmp_path / "killed", "--resume"))
    assert code == -signal.SIGKILL, said
    (tmp_path / f"dies-in-{n}").unlink()
    code, said = end(start(config, tmp_path / "other", "--resume"))
    assert code == 0, said
    trials, proofs, recommended = found(tmp_path / "other")
    check_whole(trials, proofs, recommended)
    assert len(runs_trained(tmp_path)) == len(trials) + len(proofs) + 1


@pytest.mark.slow
def test_a_killed_driver_that_goes_on_leaves_alone_what_a_living_one_is_at(
    start, database, write_shared_config, tmp_path
):
    config = write_shared_config(database)
    for n in (2, 8):
        (tmp_path / f"waits-in-{n}").touch()
    living = start(config, tmp_path / "living", "--resume")
    wait_for(tmp_path / "is-in-2", living)
    (tmp_path / "dies-in-4").touch()
    assert end(start(config, tmp_path / "killed", "--resume"))[0] == -signal.SIGKILL
    (tmp_path / "dies-in-4").unlink()
    resumed = start(config, tmp_path / "killed", "--resume")
    wait_for(tmp_path / "is-in-8", resumed)
    (tmp_path / "goes-on").touch()
    for code, said in [end(living), end(resumed)]:
        assert code == 0, said
    assert found(tmp_path / "living") == found(tmp_path / "killed")
    trials, proofs, recommended = found(tmp_path / "living")
    check_whole(trials, proofs, recommended)
    assert sum(seed == "0" for _, seed in runs_trained(tmp_path)) == 9  # the one that was cut off, begun twice


@pytest.mark.slow
@pytest.mark.parametrize("n", [4, 10], ids=["in the search", "in the proof"])
def test_a_restart_of_the_server_in_mid_search_costs_nothing(server, start, database, write_shared_config, tmp_path, n):
    config = write_shared_config(database)
    (tmp_path / f"waits-in-{n}").touch()
    driver = start(config, tmp_path / "out", "--resume")
    wait_for(tmp_path / f"is-in-{n}", driver)
    server.stop()
    try:
        (tmp_path / "goes-on").touch()
    finally:
        server.start()
    code, said = end(driver)
    assert code == 0, said
    assert "Traceback" not in said
    trials, proofs, recommended = found(tmp_path / "out")
    check_whole(trials, proofs, recommended)
    assert len(runs_trained(tmp_path)) == len(trials) + len(proofs)


@pytest.mark.slow
def test_a_database_that_is_lost_in_mid_search_is_no_mistake_and_costs_what_was_under_way(
    server, start, database, write_shared_config, tmp_path
):
    config, name = write_shared_config(database), make_url(database).database
    (tmp_path / "waits-in-4").touch()
    driver = start(config, tmp_path / "out", "--resume")
    wait_for(tmp_path / "is-in-4", driver)
    server.let_write(name, False)
    (tmp_path / "goes-on").touch()
    code, said = end(driver)
    assert code == 1, said
    assert "read-only transaction. See to the server, and go on with --resume." in said
    server.let_write(name, True)
    code, said = end(start(config, tmp_path / "out", "--resume"))
    assert code == 0, said
    check_whole(*found(tmp_path / "out"))


def test_a_database_that_takes_no_study_is_a_mistake_of_the_config(new_database, write_shared_config, tmp_path):
    theirs, mine = (make_url(new_database("open-sesame").format("open-sesame")) for _ in range(2))
    storage = mine.set(database=theirs.database).render_as_string(hide_password=False)
    with pytest.raises(ConfigError, match=r"storage: must be a database that can be opened.*permission denied"):
        run(write_shared_config(storage), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_study_is_shared_only_on_request_and_with_the_same_config(database, write_shared_config, tmp_path):
    small = ("trials: 8", "trials: 2"), ("confirm_seeds: 3", "confirm_seeds: 1")
    run(write_shared_config(database, *small), tmp_path / "first")
    with pytest.raises(OutputFolderError, match=r"must not hold a study named 'shared' yet.* Add --resume"):
        run(tmp_path / "config.yaml", tmp_path / "second")
    other = write_shared_config(database, *small, ("low: 0.9", "low: 0.8"), ("version: 1", "version: 1\nseed: 7"))
    with pytest.raises(ConfigError, match=r"other values for seed, search_space.beta2.low. Use the same config"):
        run(other, tmp_path / "second", resume=True)
    assert not (tmp_path / "second").exists()
    notes = Noting()
    joined = run(write_shared_config(database, *small), tmp_path / "second", resume=True, listener=notes)
    assert notes.said == [
        f"--resume: there is no search in {tmp_path / 'second'} to go on with; it joins the study 'shared' in storage."
    ]
    assert joined.n_trials == 2
    assert rows_of(tmp_path / "second" / "trials.csv") == rows_of(tmp_path / "first" / "trials.csv")
    assert (
        joined.recommendation.settings
        == run(tmp_path / "config.yaml", tmp_path / "first", resume=True).recommendation.settings
    )


def test_a_study_that_another_driver_takes_back_ends_the_others_with_its_name(database, write_shared_config, tmp_path):
    config = write_shared_config(database)
    with pytest.raises(
        OutputFolderError, match=r"study 'shared' must still be in .*:\*\*\*@127.0.0.1.*, but it is gone"
    ):
        run(config, tmp_path / "out", listener=TakingBack(database))


@pytest.mark.ray
def test_a_driver_without_a_cluster_does_not_take_the_study_from_the_others(
    start, database, write_shared_config, tmp_path
):
    small = ("trials: 8", "trials: 2"), ("confirm_seeds: 3", "confirm_seeds: 1")
    config = write_shared_config(database, *small)
    run(config, tmp_path / "first")
    driver = start(
        config,
        tmp_path / "second",
        "--resume",
        "--set",
        "resources.address=ray://127.0.0.1:9",
        "--set",
        "budget.trials=3",
        executor="ray_tune",
    )
    code, said = end(driver)
    assert code == 2, said
    assert "must be a Ray cluster that answers" in said
    assert run(config, tmp_path / "first", resume=True).ending == "recommended"
