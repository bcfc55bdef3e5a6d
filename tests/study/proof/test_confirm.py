"""The proof as a source of runs: seeds, the baseline's share in them, and what an interruption costs."""

from pathlib import Path

import pytest

from stabletune.config import load_config
from stabletune.records import Progress
from stabletune.results.store import RunFolder
from stabletune.study.listener import Listener
from stabletune.study.optuna_study import SearchStudy
from stabletune.study.proof.confirm import ConfirmationPhase
from stabletune.study.proof.prospects import Candidate
from tests.study.prediction.seen import seen
from tests.study.proof.test_prospects import ran
from tests.study.running import rows_of, run

CUT = """
import pathlib, torch
from stabletune import Training
from stabletune.trial.workloads.quadratic import build as quadratic

def build(seed, device):
    training, calls, cut = quadratic(seed, device, jitter=0.1, curvatures=[1.0, 30.0]), [0], pathlib.Path(CUT)
    whole = training.loss_fn

    def loss_fn(model, batch):
        calls[0] += 1
        if seed and cut.exists() and calls[0] >= 120:
            (cut.parent / "seeds").open("a").write(f"{seed} ")
            raise KeyboardInterrupt
        return whole(model, batch)

    training.loss_fn = loss_fn
    return training
"""


@pytest.fixture
def cut_config(write_config, tmp_path):
    """A study whose proof runs are cut off at call 120 while the file ``cut`` is there."""
    (tmp_path / "cut.py").write_text(CUT.replace("CUT", repr(str(tmp_path / "cut"))))
    return write_config(("workload: quadratic", "workload: cut.py:build"), ("workload_args:", "# workload_args:"))


def cut_off(config, folder, *, resume=False):
    (folder / "cut").touch()
    with pytest.raises(KeyboardInterrupt):
        run(config, folder / "out", resume=resume)
    (folder / "cut").unlink()


def seeds_cut_off(folder):
    return [int(seed) for seed in (folder / "seeds").read_text().split()]


def test_a_proof_run_that_was_cut_off_goes_on_from_its_checkpoint(cut_config, tmp_path):
    cut_config.write_text(cut_config.read_text().replace("confirm_seeds: 2", "confirm_seeds: 2, checkpoint_minutes: 0"))
    cut_off(cut_config, tmp_path)
    (seed,) = seeds_cut_off(tmp_path)
    outcome = run(cut_config, tmp_path / "out", resume=True)
    rows = rows_of(tmp_path / "out" / "confirmations.csv")
    gone_on = [row for row in rows if "gone on from step" in row["reason"]]
    assert [row["seed"] for row in gone_on] == [str(seed)]
    assert gone_on[0]["steps"] == "150"
    trials = rows_of(tmp_path / "out" / "trials.csv")
    assert outcome.recommendation.evidence["training_steps_spent"] == sum(int(r["steps"]) for r in trials + rows)
    assert not (tmp_path / "out" / "checkpoints").exists()


def test_without_a_checkpoint_it_is_made_again_with_a_fresh_seed(cut_config, tmp_path):
    cut_off(cut_config, tmp_path)
    cut_off(cut_config, tmp_path, resume=True)
    run(cut_config, tmp_path / "out", resume=True)
    seeds = [int(row["seed"]) for row in rows_of(tmp_path / "out" / "confirmations.csv")]
    assert len(set(seeds_cut_off(tmp_path))) == 2
    assert not set(seeds) & set(seeds_cut_off(tmp_path))


def test_nothing_is_saved_where_no_checkpoints_are_wanted(cut_config, tmp_path):
    cut_config.write_text(
        cut_config.read_text().replace("confirm_seeds: 2", "confirm_seeds: 2, checkpoint_minutes: null")
    )
    cut_off(cut_config, tmp_path)
    assert not (tmp_path / "out" / "checkpoints").exists()


def test_no_two_candidates_are_proven_on_the_same_seed_and_the_winner_is_paired(write_config, tmp_path):
    config = write_config(("confirm_seeds: 2", "confirm_seeds: 4"))
    outcome = run(config, tmp_path / "out")
    rows = rows_of(tmp_path / "out" / "confirmations.csv")
    proofs = [row["seed"] for row in rows if row["purpose"] == "confirmation"]
    assert len(proofs) == len(set(proofs))
    winner = str(outcome.recommendation.provenance["trial"])
    own = {row["seed"] for row in rows if row["candidate"] == winner and row["purpose"] == "confirmation"}
    assert own <= {row["seed"] for row in rows if row["purpose"] == "baseline"}


def test_what_the_proof_over_a_shorter_horizon_showed_is_kept_for_a_longer_one(write_config, tmp_path):
    run(write_config(), tmp_path / "out")
    before = rows_of(tmp_path / "out" / "confirmations.csv")
    outcome = run(write_config(("full_steps: 150", "full_steps: 240")), tmp_path / "out", resume=True)
    after = rows_of(tmp_path / "out" / "confirmations.csv")
    trials = rows_of(tmp_path / "out" / "trials.csv")
    assert after[: len(before)] == before
    assert outcome.recommendation.evidence["training_steps_spent"] == sum(int(r["steps"]) for r in trials + after)


def test_checkpoints_of_other_runs_are_not_taken_for_ones_own(tmp_path):
    folder = RunFolder(tmp_path)
    for name in (
        "0003-confirmation-150-7",
        "0003-confirmation-240-8",
        "0003-baseline-150-9",
        "0013-confirmation-150-1",
    ):
        path = folder.checkpoint_path(0, "baseline", 0, 0).with_name(f"{name}.pt")
        path.touch()
    assert folder.interrupted_seeds(3, "confirmation", 150) == [7]
    assert folder.checkpoint_path(3, "confirmation", 7, 150).exists()


def test_steps_of_a_run_that_time_cut_off_are_counted_once_when_it_goes_on(write_config, tmp_path):
    config = load_config(write_config(("confirm_seeds: 2", "confirm_seeds: 2, checkpoint_minutes: 1")))
    folder = RunFolder(tmp_path / "out")
    folder.create(config.resolved())
    study = SearchStudy(config, folder.journal_path)
    candidate = Candidate(1, {"lr": 0.05}, seen(place=(0.5, 0.5), curve=[(39, -1.0)], number=1))
    proof = ConfirmationPhase(config, study, folder, [candidate], trials=[], others=[], listener=Listener())
    spec = proof.next_spec()
    Path(spec.checkpoint).touch()
    progress = Progress(
        number=spec.number,
        purpose=spec.purpose,
        seed=spec.seed,
        step=100,
        steps=150,
        loss=1.0,
        sharpness_ratio=None,
        v_hat_staleness=None,
        saved_step=80,
    )
    proof.on_progress(progress)
    proof.on_abandoned(spec, 100)
    assert study.abandoned_steps == 20  # the eighty before them come with the run that goes on
    assert proof.next_spec().seed == spec.seed


@pytest.mark.parametrize(
    ("baseline_objectives", "winner"), [((0.016, 0.017), 0), ((0.03, 0.04), 1), ((0.016, None), 1)], ids=str
)
def test_a_baseline_that_held_on_the_same_seeds_and_ends_lower_is_recommended(
    write_config, tmp_path, baseline_objectives, winner
):
    config = load_config(write_config())
    folder = RunFolder(tmp_path / "out")
    folder.create(config.resolved())
    study = SearchStudy(config, folder.journal_path)
    risky = Candidate(0, {}, seen(place=(0.9, 0.9), curve=[(39, -1.0)], number=0, risk=0.9))
    other = Candidate(1, {"lr": 0.05}, seen(place=(0.1, 0.1), curve=[(39, -1.0)], number=1, risk=0.01))
    proof = ConfirmationPhase(config, study, folder, [risky, other], trials=[], others=[], listener=Listener())
    for seed, objective in enumerate(baseline_objectives, 1):
        clean = objective is not None
        proof.runs.append(ran(1, seed, objective=0.02, place=(0.1, 0.1)))
        proof.runs.append(ran(0, seed, clean=clean, objective=objective, place=(0.9, 0.9), purpose="baseline"))
    assert proof.standing.plan.winner.candidate.number == 1
    assert proof.winner.candidate.number == winner
    assert len(proof.winner.runs) == len(proof.baseline_runs) == 2
    assert proof.is_over
