import math

import numpy as np
import pytest
from scipy import stats

from stabletune import search
from stabletune.errors import FailedTrials, OutputFolderError
from stabletune.records import TrialResult
from stabletune.study.compare import Arm, Comparison, compare
from tests.trial.specs import quadratic_spec

CONFIG = """
version: 1
name: compared
workload: mine.py:build
search_space:
  lr: {low: 1.0e-3, high: 1.0e-1, scale: log}
  beta2: {low: 0.9, high: 0.999, scale: log_one_minus}
budget: {trials: 4, trial_steps: 60, full_steps: 150, confirm_seeds: 2}
"""
MINE, ITS = (0.5, 0.2, 0.4), (1.0, 0.5, 0.7)
SOURCE = """
from pathlib import Path
from stabletune.trial.workloads.quadratic import build as quadratic

def build(seed, device):
    if (Path(__file__).parent / "broken").exists():
        raise OSError("the data are gone")
    return quadratic(seed, device, jitter=0.1, curvatures=(1.0, 30.0))
"""


def arm(objectives, spiky=()):
    return Arm(
        tuple(
            TrialResult(
                spec=quadratic_spec(seed=seed),
                status="diverged" if seed in spiky else "completed",
                reason="",
                losses=np.ones(3),
                objective=objective,
            )
            for seed, objective in enumerate(objectives)
        )
    )


def comparison(mine, its, metric="final_loss", source="train"):
    return Comparison(metric, source, 3, arm(mine), arm(its))


@pytest.mark.parametrize(("metric", "source"), [("final_loss", "train"), ("final_loss", "eval"), ("loss_auc", "eval")])
def test_ratios_of_values_are_averaged_over_pairs_as_logarithms(metric, source):
    logs = np.log(MINE) - np.log(ITS)
    low, high = stats.t.interval(0.95, 2, logs.mean(), stats.sem(logs))
    found = comparison(MINE, ITS, metric, source).ratio_interval()
    np.testing.assert_allclose(found, np.exp([logs.mean(), low, high]))


def test_the_loss_auc_of_training_is_a_logarithm_already():
    shifted = comparison([v - 3.0 for v in MINE], [v - 3.0 for v in ITS], "loss_auc").ratio_interval()
    assert shifted == pytest.approx(comparison(MINE, ITS, "loss_auc").ratio_interval())
    assert shifted[0] == pytest.approx(math.exp(np.mean(MINE) - np.mean(ITS)))


def test_the_interval_does_not_depend_on_the_unit_of_the_objective():
    found = comparison([7 * v for v in MINE], [7 * v for v in ITS]).ratio_interval()
    assert found == pytest.approx(comparison(MINE, ITS).ratio_interval())


@pytest.mark.parametrize("odd", [None, math.inf, 0.0, -1.0])
def test_pairs_that_have_no_ratio_are_left_out(odd):
    expected = comparison(MINE, ITS).ratio_interval()
    assert comparison((*MINE, odd), (*ITS, 1.0)).ratio_interval() == pytest.approx(expected)
    assert comparison((*MINE, 1.0), (*ITS, odd)).ratio_interval() == pytest.approx(expected)
    assert comparison((0.5, odd), (1.0, 1.0)).ratio_interval() is None


def test_an_arm_counts_spiky_runs_with_their_exact_bound():
    found = arm((1.0, None, 2.0), spiky={1})
    assert found.n_spiky == 1
    assert found.spiky_rate_upper == pytest.approx(stats.beta.ppf(0.95, 2, 2))
    assert found.objective == 2.0


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    (folder / "mine.py").write_text(SOURCE)
    (folder / "config.yaml").write_text(CONFIG)
    result = search(folder / "config.yaml", output=folder / "run", executor="inline")
    assert result.ending == "recommended"
    return folder / "run"


def test_both_arms_run_on_the_same_fresh_seeds(run_dir):
    first = compare(run_dir, n_seeds=2, steps=40, executor="inline")
    seeds = [[result.spec.seed for result in one.results] for one in (first.recommended, first.baseline)]
    assert seeds[0] == seeds[1]
    assert [result.steps for result in first.recommended.results + first.baseline.results] == [40] * 4
    second = compare(run_dir, n_seeds=1, steps=40, executor="inline")
    assert second.baseline.results[0].spec.seed not in seeds[0]


def test_a_run_that_fails_ends_the_comparison_with_the_users_traceback(run_dir):
    broken = run_dir.parent / "broken"
    broken.touch()
    try:
        with pytest.raises(
            FailedTrials, match=r"the recommended settings failed with seed .*the data are gone"
        ) as caught:
            compare(run_dir, n_seeds=2, executor="inline")
    finally:
        broken.unlink()
    assert "mine.py" in caught.value.traceback


def test_without_the_study_no_seed_is_known_to_be_fresh(run_dir):
    journal, away = run_dir / "study.journal", run_dir.parent / "away.journal"
    journal.rename(away)
    try:
        with pytest.raises(OutputFolderError, match="the study of the search must be there"):
            compare(run_dir, executor="inline")
        assert not journal.exists()
    finally:
        away.rename(journal)


def test_steps_to_the_baselines_loss_are_counted_where_the_recommended_run_first_is_there():
    falling = np.linspace(1.0, 0.0, 101)[1:]
    mine = TrialResult(spec=quadratic_spec(), status="completed", reason="", losses=falling, objective=0.02)
    its = TrialResult(spec=quadratic_spec(), status="completed", reason="", losses=np.full(100, 0.5), objective=0.5)
    diverged = TrialResult(spec=quadratic_spec(), status="diverged", reason="", losses=np.array([1.0, math.nan]))
    found = Comparison("final_loss", "train", 100, Arm((mine, mine)), Arm((its, diverged)))
    assert found.steps_to_baseline() == 60  # the median of the 20 losses that end there is 0.495, of those before 0.505
    assert Comparison("final_loss", "train", 100, Arm((its,)), Arm((mine,))).steps_to_baseline() == math.inf
    assert Comparison("final_loss", "train", 100, Arm((mine,)), Arm((diverged,))).steps_to_baseline() is None
    assert found.as_data()["steps_to_baseline"] == 60
    cut_off = TrialResult(spec=quadratic_spec(), status="diverged", reason="", losses=np.array([1.0] * 9 + [math.nan]))
    assert Comparison("final_loss", "train", 100, Arm((cut_off,)), Arm((its,))).steps_to_baseline() == math.inf
