"""What resuming a study once got wrong."""

import json

import optuna
import pytest
import yaml

from stabletune.errors import BaselineFailed, ConfigError, OutputFolderError
from stabletune.results.store import RunFolder
from stabletune.study.compare import compare
from stabletune.study.listener import Listener
from tests.study.running import rows_of, run
from tests.study.spiking import write_spiking_workload


def test_a_longer_horizon_is_proven_anew(write_config, tmp_path):
    run(write_config(), tmp_path / "out")
    result = run(write_config(("full_steps: 150", "full_steps: 240")), tmp_path / "out", resume=True)
    assert result.recommendation.evidence["confirmed_steps"] == 240
    rows = rows_of(tmp_path / "out" / "confirmations.csv")
    assert sum(row["steps"] == "240" for row in rows) >= 2 * 2


def test_a_recommendation_that_a_stricter_proof_refutes_is_taken_back(write_config, tmp_path):
    spiking = write_spiking_workload(tmp_path, "seed > 22 and calls[0] in (60, 61, 62)")
    result = run(write_config(*spiking), tmp_path / "out")
    assert result.ending == "recommended"
    strict = write_config(*spiking, ("confirm_seeds: 2", "confirm_seeds: 30"))
    assert run(strict, tmp_path / "out", resume=True).ending == "nothing_survived"
    assert not (tmp_path / "out" / "recommended.yaml").exists()


def test_trials_of_a_larger_budget_get_their_proof(write_config, tmp_path):
    first = run(write_config(("trials: 6", "trials: 1")), tmp_path / "out")
    assert first.recommendation.provenance["trial"] == 0
    before = len(rows_of(tmp_path / "out" / "confirmations.csv"))
    second = run(write_config(("trials: 6", "trials: 12")), tmp_path / "out", resume=True)
    assert second.recommendation.provenance["trial"] > 0  # the baseline's rate is far too low for this quadratic
    assert len(rows_of(tmp_path / "out" / "confirmations.csv")) >= before + 2


def test_resuming_a_finished_study_leaves_the_recommendation_as_it_is(write_config, tmp_path):
    run(write_config(), tmp_path / "out")
    before = (tmp_path / "out" / "recommended.yaml").read_text()
    run(write_config(), tmp_path / "out", resume=True)
    assert (tmp_path / "out" / "recommended.yaml").read_text() == before
    assert yaml.safe_load(before)["provenance"]["device"] == "cpu"


@pytest.mark.parametrize("sampler", ["random", "nsga2"])
def test_a_resumed_sampler_proposes_new_values(write_config, tmp_path, sampler):
    chosen = ("budget:", f"sampler: {sampler}\nbudget:")
    run(write_config(chosen), tmp_path / "out")
    run(write_config(chosen, ("trials: 6", "trials: 10")), tmp_path / "out", resume=True)
    lrs = [row["lr"] for row in rows_of(tmp_path / "out" / "trials.csv")]
    assert len(set(lrs)) == 10


def test_a_failing_baseline_leaves_no_folder_even_with_resume(write_config, tmp_path):
    (tmp_path / "broken.py").write_text("def build(seed, device):\n    raise OSError('no such data')\n")
    config = write_config(("workload: quadratic", "workload: broken.py:build"), ("workload_args:", "# workload_args:"))
    with pytest.raises(BaselineFailed):
        run(config, tmp_path / "out", resume=True)
    assert not (tmp_path / "out").exists()


def test_a_baseline_outside_the_space_is_not_modelled_and_does_not_shrink_it(write_config, tmp_path):
    run(write_config(("budget:", "baseline: {lr: 1.0e-5}\nbudget:")), tmp_path / "out")
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "out" / "study.journal"))
    study = optuna.load_study(study_name="quadratic", storage=optuna.storages.JournalStorage(backend))
    assert study.trials[0].state == optuna.trial.TrialState.FAIL
    assert set(optuna.search_space.IntersectionSearchSpace().calculate(study)) == {"lr", "one_minus_beta2"}
    assert study.trials[0].user_attrs["record"]["settings"]["lr"] == 1e-5


def test_a_baseline_that_diverges_in_the_proof_gives_no_ratio_and_valid_json(write_config, tmp_path):
    (tmp_path / "late.py").write_text(
        "import torch\n"
        "from stabletune import Training\n"
        "def build(seed, device, *, width=1):\n"
        "    model, calls = torch.nn.Linear(1, 1), [0]\n"
        "    def loss_fn(m, batch):\n"
        "        calls[0] += 1\n"
        "        late = float('nan') if width == 1 and calls[0] > 100 else 1.0\n"
        "        return (m.weight**2).sum() * 0.0 + late + 0.01 * (calls[0] % 2)\n"
        "    return Training(model=model, loss_fn=loss_fn, batches=[0])\n"
    )
    config = write_config(
        ("workload: quadratic", "workload: late.py:build"),
        ("workload_args: {jitter: 0.1, curvatures: [1.0, 30.0]}", "workload_args: {width: 1}"),
        ("search_space:", "search_space:\n  workload_args.width: {choices: [1, 2]}"),
    )
    objective = run(config, tmp_path / "out").recommendation.to_dict()["evidence"]["objective"]
    assert json.loads(json.dumps(objective, allow_nan=False))["ratio"] is None


def test_a_storage_that_cannot_be_opened_is_a_mistake_of_the_config_and_leaves_no_folder(
    write_config,
    tmp_path,
):
    with pytest.raises(ConfigError, match="storage: must be an SQLAlchemy URL of a database it knows"):
        run(write_config(("budget:", "storage: foo://nowhere\nbudget:")), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_resuming_into_a_new_folder_does_not_adopt_another_study_of_the_same_name(write_config, tmp_path):
    config = write_config(("budget:", f"storage: sqlite:///{tmp_path}/study.db\nbudget:"))
    run(config, tmp_path / "out")
    with pytest.raises(OutputFolderError, match="storage: must not hold a study named 'quadratic' yet"):
        run(config, tmp_path / "other", resume=True)
    assert not (tmp_path / "other").exists()


def test_a_last_record_that_a_crash_left_half_written_is_cut_off(write_config, tmp_path):
    run(write_config(), tmp_path / "out")
    with open(tmp_path / "out" / "study.journal", "a") as journal:
        journal.write('{"op_code": 4, "trunc')
    assert run(write_config(("trials: 6", "trials: 7")), tmp_path / "out", resume=True).n_trials == 7


def test_a_folder_without_its_journal_is_not_resumed(write_config, tmp_path):
    run(write_config(), tmp_path / "out")
    (tmp_path / "out" / "study.journal").unlink()
    with pytest.raises(OutputFolderError, match="must be there to go on with a search"):
        run(write_config(), tmp_path / "out", resume=True)
    assert (tmp_path / "out" / "trials.csv").exists()


def test_a_study_that_is_gone_from_its_database_is_not_begun_anew(write_config, tmp_path):
    storage = ("budget:", f"storage: sqlite:///{tmp_path}/study.db\nbudget:")
    run(write_config(storage), tmp_path / "out")
    before = (tmp_path / "out" / "trials.csv").read_text()
    (tmp_path / "study.db").unlink()
    with pytest.raises(OutputFolderError, match="is gone"):
        run(write_config(storage), tmp_path / "out", resume=True)
    assert not (tmp_path / "study.db").exists()
    optuna.create_study(storage=f"sqlite:///{tmp_path}/study.db", study_name="another")
    with pytest.raises(OutputFolderError, match="is gone"):
        run(write_config(storage), tmp_path / "out", resume=True)
    assert (tmp_path / "out" / "trials.csv").read_text() == before


def test_two_processes_do_not_work_in_one_folder(write_config, tmp_path):
    run(write_config(), tmp_path / "out")
    with RunFolder(tmp_path / "out").claimed():
        with pytest.raises(OutputFolderError, match="must be used by one process at a time"):
            run(write_config(), tmp_path / "out", resume=True)
        with pytest.raises(OutputFolderError, match="must be used by one process at a time"):
            compare(tmp_path / "out", executor="inline")
    assert run(write_config(), tmp_path / "out", resume=True).ending == "recommended"


class Noting(Listener):
    def __init__(self):
        self.notes = []

    def on_note(self, sentence):
        self.notes.append(sentence)


def test_what_a_resume_changes_or_does_not_find_is_said(write_config, tmp_path):
    listener = Noting()
    run(write_config(), tmp_path / "out", resume=True, listener=listener)
    assert listener.notes == [f"--resume: there is no search in {tmp_path / 'out'} to go on with; a new one begins."]
    run(write_config(("full_steps: 150", "full_steps: 160")), tmp_path / "out", resume=True, listener=listener)
    assert listener.notes[1:] == ["--resume: budget.full_steps was 150 and is 160 from now on."]
