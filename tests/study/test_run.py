import json

import numpy as np
import optuna
import pytest
import yaml

from stabletune import Recommendation
from stabletune.errors import BaselineFailed, ConfigError, OutputFolderError, RepeatedFailures
from stabletune.study.listener import Listener
from tests.study.running import rows_of, run
from tests.study.spiking import write_spiking_workload


def test_a_search_ends_with_a_proven_recommendation_and_every_file(write_config, tmp_path):
    out = tmp_path / "out"
    result = run(write_config(), out)
    assert result.ending == "recommended"
    evidence = result.recommendation.evidence
    assert evidence["spiky_runs"] == 0
    assert evidence["confirm_seeds"] == 2
    assert evidence["objective"]["ratio"] <= 1.0
    written = yaml.safe_load((out / "recommended.yaml").read_text())
    assert written["settings"]["lr"] == result.recommendation.settings["lr"]
    assert Recommendation.load(out / "recommended.yaml").evidence == evidence
    trials = rows_of(out / "trials.csv")
    assert [int(row["trial"]) for row in trials] == list(range(6))
    assert trials[0]["lr"] == "0.001"
    proofs = rows_of(out / "confirmations.csv")
    spent = sum(int(row["steps"]) for row in trials + proofs)
    assert evidence["training_steps_spent"] == spent
    sent = {row["candidate"] for row in proofs if row["purpose"] == "confirmation"}
    assert evidence["candidates_tried"] == len(sent | {"0"})  # the baseline is always sent
    losses = np.load(out / "trials" / "0003" / "losses.npy")
    assert losses.shape == (60,)
    lines = (out / "trials" / "0003" / "measurements.jsonl").read_text().splitlines()
    assert all(json.loads(line)["version"] == 1 for line in lines)
    assert (out / "report.html").stat().st_size > 10_000


def test_the_proof_uses_fresh_seeds_each_once_and_the_baseline_the_winners(write_config, tmp_path):
    run(write_config(), tmp_path / "out")
    proofs = rows_of(tmp_path / "out" / "confirmations.csv")
    candidates = [r for r in proofs if r["purpose"] == "confirmation"]
    seeds = [row["seed"] for row in candidates]
    assert len(set(seeds)) == len(seeds)
    assert "0" not in seeds  # the search's own
    baseline = {row["seed"] for row in proofs if row["purpose"] == "baseline"}
    proven = [{r["seed"] for r in candidates if r["candidate"] == n} for n in {r["candidate"] for r in candidates}]
    assert sum(len(seeds) == 2 and seeds <= baseline for seeds in proven) == 1


def test_the_journal_opens_with_optunas_own_tools(write_config, tmp_path):
    run(write_config(), tmp_path / "out")
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "out" / "study.journal"))
    study = optuna.load_study(study_name="quadratic", storage=optuna.storages.JournalStorage(backend))
    assert len(study.trials) == 6
    assert study.best_trial.value == min(t.value for t in study.trials)


def test_the_same_config_gives_the_same_trials(write_config, tmp_path):
    config = write_config()
    run(config, tmp_path / "a")
    run(config, tmp_path / "b")
    a, b = rows_of(tmp_path / "a" / "trials.csv"), rows_of(tmp_path / "b" / "trials.csv")
    assert [{**row, "seconds": ""} for row in a] == [{**row, "seconds": ""} for row in b]


def test_a_folder_that_holds_a_search_is_refused_and_left_alone(write_config, tmp_path):
    config = write_config()
    run(config, tmp_path / "out")
    before = {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    with pytest.raises(OutputFolderError, match="must not hold a search yet"):
        run(config, tmp_path / "out")
    assert {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()} == before


def test_resume_tops_the_study_up_and_repeats_no_trial(write_config, tmp_path):
    out = tmp_path / "out"
    run(write_config(), out)
    before = rows_of(out / "trials.csv")
    result = run(write_config(("trials: 6", "trials: 9")), out, resume=True)
    after = rows_of(out / "trials.csv")
    assert result.n_trials == 9
    assert after[:6] == before
    assert [int(row["trial"]) for row in after] == list(range(9))
    seeds = [row["seed"] for row in rows_of(out / "confirmations.csv") if row["purpose"] == "confirmation"]
    assert len(set(seeds)) == len(seeds)


def test_resume_refuses_another_config_by_name(write_config, tmp_path):
    run(write_config(), tmp_path / "out")
    with pytest.raises(ConfigError, match=r"only budget may differ .* workload_args.jitter"):
        run(write_config(("jitter: 0.1", "jitter: 0.2")), tmp_path / "out", resume=True)


class Interrupting(Listener):
    def __init__(self, after):
        self.left = after

    def on_start(self, spec):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("after", [0, 3, 7, 9], ids=["at once", "in the search", "in the proof", "later in the proof"])
def test_an_interrupted_search_loses_no_trial_and_an_interrupted_proof_ends_as_it_would_have(
    write_config, tmp_path, after
):
    config = write_config()
    whole = run(config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "cut", listener=Interrupting(after))
    resumed = run(config, tmp_path / "cut", resume=True)
    rows = rows_of(tmp_path / "cut" / "trials.csv")
    assert [int(row["trial"]) for row in rows] == list(range(6))
    assert resumed.ending == whole.ending == "recommended"
    if after > 6:  # a sampler that is cut off goes on with another seed, and proposes other values
        assert resumed.recommendation.settings == whole.recommendation.settings


class InterruptingAtOnce(Listener):
    def on_search(self, n_trials, n_finished):
        raise KeyboardInterrupt


def test_a_search_that_is_interrupted_before_its_first_trial_leaves_no_folder_that_wants_to_be_resumed(
    write_config, tmp_path
):
    config = write_config()
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "out", listener=InterruptingAtOnce())
    assert not (tmp_path / "out").exists()
    run(write_config(("trials: 6", "trials: 1")), tmp_path / "out")
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "out", resume=True, listener=InterruptingAtOnce())
    assert len(rows_of(tmp_path / "out" / "trials.csv")) == 1


def test_the_baseline_may_lie_outside_the_space(write_config, tmp_path):
    baseline = ("budget:", "baseline: {lr: 1.0e-5, beta2: 0.99999, weight_decay: 0.5}\nbudget:")
    run(write_config(baseline), tmp_path / "out")
    first = rows_of(tmp_path / "out" / "trials.csv")[0]
    assert (first["lr"], first["beta2"], first["weight_decay"]) == ("1e-05", "0.99999", "0.5")


@pytest.mark.parametrize("sampler", ["tpe", "gp", "cmaes", "nsga2", "qmc", "random"])
def test_every_sampler_searches_ranges_and_choices(write_config, tmp_path, sampler):
    space = ("search_space:", f"sampler: {sampler}\nsearch_space:\n  max_grad_norm: {{choices: [null, 1.0]}}")
    small = ("confirm_seeds: 2", "confirm_seeds: 1")
    result = run(write_config(space, small), tmp_path / "out")
    assert result.n_trials == 6
    assert {row["max_grad_norm"] for row in rows_of(tmp_path / "out" / "trials.csv")} <= {"", "1.0"}


def test_settings_that_all_spike_are_not_recommended(write_config, tmp_path):
    config = write_config(*write_spiking_workload(tmp_path, "calls[0] % 97 == 0"))
    result = run(config, tmp_path / "out")
    assert result.ending == "nothing_survived"
    assert "came closest" in result.message
    assert not (tmp_path / "out" / "recommended.yaml").exists()


def test_a_baseline_that_cannot_run_leaves_no_folder_behind(write_config, tmp_path):
    (tmp_path / "broken.py").write_text("def build(seed, device):\n    raise OSError('no such data')\n")
    config = write_config(("workload: quadratic", "workload: broken.py:build"), ("workload_args:", "# workload_args:"))
    with pytest.raises(BaselineFailed, match="no such data") as caught:
        run(config, tmp_path / "out")
    assert "broken.py" in caught.value.traceback
    assert not (tmp_path / "out").exists()


def test_trials_that_raise_are_recorded_and_the_search_goes_on_until_five_in_a_row(write_config, tmp_path):
    (tmp_path / "picky.py").write_text(
        "from stabletune.trial.workloads.quadratic import build as quadratic\n"
        "def build(seed, device, *, width=1):\n"
        "    if width > LIMIT:\n"
        "        raise MemoryError(f'width {width}')\n"
        "    return quadratic(seed, device)\n".replace("LIMIT", "1")
    )
    changes = (
        ("workload: quadratic", "workload: picky.py:build"),
        ("workload_args: {jitter: 0.1, curvatures: [1.0, 30.0]}", "workload_args: {width: 1}"),
        ("search_space:", "search_space:\n  workload_args.width: {choices: [1, 2]}"),
        ("trials: 6", "trials: 8"),
    )
    result = run(write_config(*changes), tmp_path / "out")
    rows = rows_of(tmp_path / "out" / "trials.csv")
    failed = [row for row in rows if row["status"] == "failed"]
    assert 0 < len(failed) < 8
    assert all("MemoryError: width 2" in row["reason"] for row in failed)
    assert result.ending == "recommended"
    with pytest.raises(RepeatedFailures, match="5; the last: building: the workload raised MemoryError"):
        run(write_config(*changes, ("choices: [1, 2]", "choices: [2, 3]")), tmp_path / "other")


def test_a_search_out_of_time_recommends_nothing_and_can_be_resumed(write_config, tmp_path):
    result = run(write_config(("trials: 6", "wall_minutes: 1.0e-6, trials: 6")), tmp_path / "out")
    assert result.ending == "out_of_time"
    assert not (tmp_path / "out" / "recommended.yaml").exists()
    assert run(write_config(), tmp_path / "out", resume=True).ending == "recommended"
