import dataclasses

import numpy as np
import pytest
import yaml

from stabletune.config import load_config
from stabletune.study.trials.several_seeds import OpenTrial
from tests.study.running import rows_of, run
from tests.study.spiking import write_spiking_workload
from tests.study.test_feasibility import result

THREE = ("confirm_seeds: 2", "confirm_seeds: 2, seeds_per_trial: 3")


def trial(*results):
    made = OpenTrial(number=1, values={}, n_seeds=3, seeds_left=[0, 7, 8])
    made.results += results
    return made


def test_a_trial_of_three_seeds_has_their_median_their_mean_risk_and_all_their_steps():
    three = trial(*(result(objective=objective, risk=objective / 10.0) for objective in (1.0, 5.0, 3.0)))
    whole, row = three.whole(), three.row()
    assert three.is_over
    assert (whole.objective, whole.risk) == (3.0, pytest.approx(0.3))
    assert (row["steps"], row["n_seeds"], row["objective_noise"]) == (180, 3, pytest.approx(2.0))


def test_one_seed_that_spikes_settles_the_trial():
    spiked = dataclasses.replace(result("stopped", 20, 4.0), seconds=3.0)
    two = trial(result(objective=1.0, risk=0.1), spiked)
    assert two.is_over
    assert two.whole().is_spiky
    assert two.row()["steps"] == 80
    assert two.row()["status"] == "stopped"


def test_a_trial_waits_for_all_its_clean_seeds():
    assert not trial(result(objective=1.0), result(objective=2.0)).is_over


def test_every_trial_of_a_search_runs_the_same_seeds_and_the_proof_none_of_them(write_config, tmp_path):
    out = tmp_path / "out"
    outcome = run(write_config(THREE), out)
    rows = rows_of(out / "trials.csv")
    assert outcome.ending == "recommended"
    assert len(rows) == 6
    completed = [row for row in rows if row["status"] == "completed"]
    assert completed and all(row["steps"] == "180" for row in completed)
    assert np.load(out / "trials" / "0000" / "seed-0001" / "losses.npy").shape == (60,)
    proofs = rows_of(out / "confirmations.csv")
    assert not {row["seed"] for row in proofs} & {"0", "1", "2"}
    assert outcome.recommendation.evidence["training_steps_spent"] == sum(int(row["steps"]) for row in rows + proofs)


def test_a_setting_that_spikes_with_the_second_seed_only_is_no_candidate(write_config, tmp_path):
    changes = write_spiking_workload(tmp_path, "seed == 1 and calls[0] > 40")
    outcome = run(write_config(*changes, THREE), tmp_path / "out")
    assert outcome.ending == "nothing_survived"
    assert "nothing was sent to the proof" in outcome.message
    assert {row["n_seeds"] for row in rows_of(tmp_path / "out" / "trials.csv")} == {"2"}


def test_more_seeds_on_resume_keep_those_that_were_drawn(write_config, tmp_path):
    run(write_config(THREE), tmp_path / "out")
    more = ("confirm_seeds: 2", "confirm_seeds: 2, seeds_per_trial: 4"), ("trials: 6", "trials: 8")
    run(write_config(*more), tmp_path / "out", resume=True)
    seeds = [row["seed"] for row in rows_of(tmp_path / "out" / "confirmations.csv") if row["purpose"] == "confirmation"]
    assert len(set(seeds)) == len(seeds)
    of_trials = [{path.name for path in (tmp_path / "out" / "trials" / n).glob("seed-*")} for n in ("0000", "0007")]
    assert {"seed-0001", "seed-0002"} <= of_trials[0] & of_trials[1]  # what the proof took comes after these


def test_the_runs_of_a_trial_that_a_crash_left_unfinished_are_counted_once(write_config, tmp_path):
    changes = write_spiking_workload(tmp_path, "seed == 99")
    source = (tmp_path / "spiking.py").read_text()
    stop = source.replace("calls[0] += 1", "calls[0] += 1\n        if seed == 2: raise KeyboardInterrupt")
    (tmp_path / "spiking.py").write_text(stop)
    with pytest.raises(KeyboardInterrupt):
        run(write_config(*changes, THREE), tmp_path / "out")
    (tmp_path / "spiking.py").write_text(source)
    config = yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())
    config["workload_sha256"] = load_config(write_config(*changes, THREE)).workload_sha256
    (tmp_path / "out" / "config.yaml").write_text(yaml.safe_dump(config))
    outcome = run(write_config(*changes, THREE), tmp_path / "out", resume=True)
    rows = rows_of(tmp_path / "out" / "trials.csv") + rows_of(tmp_path / "out" / "confirmations.csv")
    lost = 2 * 60  # the baseline's first two seeds, before the third ended the search
    assert outcome.recommendation.evidence["training_steps_spent"] == lost + sum(int(row["steps"]) for row in rows)
