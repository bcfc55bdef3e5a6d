"""What studies at the ends of what a config may say once got wrong."""

from stabletune.results.report.findings import read_findings
from stabletune.results.store import RunFolder
from stabletune.summaries import study_summary
from tests.study.running import rows_of, run


def test_trials_shorter_than_the_trailing_window_are_told_apart(write_config, tmp_path):
    tiny = ("trial_steps: 60, full_steps: 150", "trial_steps: 15, full_steps: 15")
    result = run(write_config(tiny), tmp_path / "out")
    assert result.recommendation.provenance["trial"] > 0  # the baseline's rate is far too low for this quadratic


def test_a_recommended_baseline_without_a_place_on_the_map_still_has_a_report(write_config, tmp_path):
    clip = ("search_space:", "baseline: {lr: 0.05}\nsearch_space:\n  max_grad_norm: {low: 0.1, high: 1.0, scale: log}")
    slow = ("lr: {low: 1.0e-3, high: 1.0e-1", "lr: {low: 1.0e-6, high: 1.0e-5")
    result = run(write_config(clip, slow), tmp_path / "out")
    assert result.recommendation.provenance["trial"] == 0
    assert (tmp_path / "out" / "report.html").exists()


def test_a_search_with_the_largest_seed_can_be_resumed(write_config, tmp_path):
    seed = ("search_space:", "seed: 4294967295\nsearch_space:")
    run(write_config(seed), tmp_path / "out")
    run(write_config(seed, ("trials: 6", "trials: 8")), tmp_path / "out", resume=True)
    assert len(rows_of(tmp_path / "out" / "trials.csv")) == 8


def test_the_report_shows_every_run_of_the_proof_of_a_recommended_baseline(write_config, tmp_path):
    outcome = run(write_config(("trials: 6", "trials: 1"), ("confirm_seeds: 2", "confirm_seeds: 4")), tmp_path / "out")
    assert outcome.recommendation.provenance["trial"] == 0
    findings = read_findings(RunFolder(tmp_path / "out"))
    assert findings.best.n_runs == 4
    assert findings.paired_baseline.objective == findings.best.objective


def test_a_recommendation_whose_loss_hardly_fell_is_warned_of(write_config, tmp_path):
    slow = (
        ("lr: {low: 1.0e-3, high: 1.0e-1", "lr: {low: 1.0e-8, high: 1.0e-7"),
        ("budget:", "baseline: {lr: 1.0e-8}\nbudget:"),
    )
    outcome = run(write_config(*slow), tmp_path / "slow")
    assert "it hardly trained" in outcome.recommendation.evidence["warning"]
    assert "it hardly trained" in (tmp_path / "slow" / "report.html").read_text()
    assert "Warning: The loss is still above half" in study_summary(outcome)
    assert "warning" not in run(write_config(), tmp_path / "fast").recommendation.evidence
