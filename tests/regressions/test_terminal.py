"""Fixed bugs of what a person sees: zeros that were hidden, nan in scores, silence where there is no terminal."""

import io

import numpy as np
from rich.console import Console

from stabletune.records import Progress, TrialResult
from stabletune.results.recommendation import Recommendation
from stabletune.study.proof.outcome import StudyResult
from stabletune.summaries import study_summary, trial_summary
from stabletune.terminal import SignalLines
from tests.trial.specs import quadratic_spec

EVIDENCE = {
    "confirmed_steps": 100,
    "confirm_seeds": 2,
    "spiky_runs": 0,
    "candidates_tried": 1,
    "spiky_run_rate_upper_95": 0.8,
    "objective": {"metric": "final_loss", "recommended": 1.0, "baseline": 2.0, "ratio": 0.5},
    "baseline_spiky_runs": 0,
    "training_steps_spent": 500,
}
SETTINGS = {"lr": 0.1, "beta1": 0.0, "weight_decay": 0.0, "max_grad_norm": None, "amsgrad": False}


def test_a_setting_of_zero_is_shown_and_what_is_off_is_not(tmp_path):
    result = StudyResult("recommended", "", tmp_path, 1, Recommendation(SETTINGS, EVIDENCE))
    line = study_summary(result).splitlines()[0]
    assert "beta1 0" in line and "weight_decay 0" in line
    assert "max_grad_norm" not in line and "amsgrad" not in line


def test_a_loss_that_is_not_a_number_leaves_the_spike_score_a_number():
    losses = np.array([1.0 + 0.01 * (n % 2) for n in range(50)] + [np.nan, np.inf])
    result = TrialResult(spec=quadratic_spec(), status="diverged", reason="", losses=losses)
    last = trial_summary(result).splitlines()[-1]
    assert last.startswith("OLMo spike score") and last.endswith(": 0.000%")


def progress(step):
    return Progress(
        number=0, purpose="search", seed=0, step=step, steps=9, loss=0.5, sharpness_ratio=0.75, v_hat_staleness=None
    )


def test_without_a_terminal_a_trial_shows_its_signals_in_lines():
    text = io.StringIO()
    lines = SignalLines(Console(file=text), seconds=0.0)
    lines.on_progress(progress(1))
    lines.on_progress(progress(2))
    assert text.getvalue().splitlines() == [
        f"step {step} of 9: loss 0.5, sharpness_ratio 0.750, v_hat_staleness -" for step in (1, 2)
    ]


def test_lines_do_not_come_faster_than_they_may():
    text = io.StringIO()
    lines = SignalLines(Console(file=text), seconds=1e9)
    for step in range(1, 9):
        lines.on_progress(progress(step))
    assert len(text.getvalue().splitlines()) == 1
