import numpy as np

from stabletune.trial.worker import run_trial
from tests.trial.specs import spec_of_file

OWN = """
    import torch

    def train(trial, *, width=8):
        model = torch.nn.Linear(4, width)
        trial.watch(model)
        optimizer = trial.build_optimizer(model.parameters())
        schedule = trial.build_schedule(optimizer)
        batch = torch.randn(16, 4)
        loss_fn = lambda: (model(batch) ** 2).mean()
        for step in range(trial.steps):
            optimizer.zero_grad()
            loss = loss_fn()
            loss.backward()
            optimizer.step()
            schedule.step()
            if trial.step(loss, loss_fn):
                break
        trial.report_eval(0.25)
"""


def test_a_loop_of_the_users_own_is_recorded_measured_and_evaluated(tmp_path):
    changes = {"source": "eval", "workload_args": {"width": 4}, "overhead": 0.5}
    result = run_trial(spec_of_file(tmp_path, OWN, function="train", **changes))
    assert result.status == "completed"
    assert result.steps == 60
    assert result.objective == 0.25
    assert any(m.sharpness_ratio is not None for m in result.measurements)


def test_the_schedule_of_the_trial_spans_the_full_horizon(tmp_path):
    spec = spec_of_file(
        tmp_path,
        OWN,
        function="train",
        schedule="linear",
        overhead=None,
        every=1,
        params={"warmup_ratio": 0.05, "lr": 0.1},
    )
    lrs = [m.lr for m in run_trial(spec).measurements]
    np.testing.assert_allclose(lrs[:10], 0.1 * np.arange(1, 11) / 10)
    np.testing.assert_allclose(lrs[-1], 0.1 * (200 - 60) / (200 - 10))


def test_returning_early_without_a_stop_is_recorded_as_failed(tmp_path):
    result = run_trial(spec_of_file(tmp_path, OWN.replace("range(trial.steps)", "range(5)"), function="train"))
    assert result.status == "failed"
    assert "must call trial.step 60 times or until it returns True, but returned after 5" in result.reason


def test_a_loop_that_diverges_is_told_to_stop(tmp_path):
    result = run_trial(spec_of_file(tmp_path, OWN, function="train", params={"lr": 1e30}))
    assert result.status == "diverged"


def test_forgetting_to_watch_is_named(tmp_path):
    result = run_trial(spec_of_file(tmp_path, OWN.replace("trial.watch(model)", "pass"), function="train"))
    assert "trial.watch(model) must be called before trial.step" in result.reason


def test_forgetting_the_eval_value_is_named(tmp_path):
    source = OWN.replace("trial.report_eval(0.25)", "pass")
    result = run_trial(spec_of_file(tmp_path, source, function="train", source="eval"))
    assert "must call trial.report_eval(value)" in result.reason


def test_a_loop_that_never_stops_is_recorded_rather_than_waited_for(tmp_path):
    source = OWN.replace("for step in range(trial.steps):", "while True:").replace("break", "pass")
    result = run_trial(spec_of_file(tmp_path, source, function="train"))
    assert result.status == "failed"
    assert "after step 60: train: must stop when trial.step returns True, but called it 1061 times" in result.reason
