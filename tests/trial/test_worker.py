import numpy as np
import pytest
import torch

from stabletune.trial.worker import run_trial
from tests.trial.specs import quadratic_spec, spec_of_file

LINEAR = """
    import torch
    from stabletune import Training

    def build(seed, device, *, width=1):
        x, y = torch.randn(32, 4), torch.randn(32, width)
        model = torch.nn.Linear(4, width)
        return Training(model=model, loss_fn=lambda m, b: ((m(b[0]) - b[1]) ** 2).mean(), batches=[(x, y)])
"""


def test_a_trial_trains_as_plain_adamw_does(tmp_path):
    spec = spec_of_file(tmp_path, LINEAR, params={"lr": 0.05, "beta2": 0.95, "max_grad_norm": 0.5}, seed=3)
    result = run_trial(spec)

    torch.manual_seed(3)
    x, y = torch.randn(32, 4), torch.randn(32, 1)
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05, betas=(0.9, 0.95))
    losses = []
    for _ in range(spec.steps):
        optimizer.zero_grad()
        loss = ((model(x) - y) ** 2).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        losses.append(loss.item())
    assert result.status == "completed"
    assert result.losses.tolist() == losses


def test_measuring_more_changes_no_loss(tmp_path):
    source = LINEAR.replace(
        "torch.nn.Linear(4, width)", "torch.nn.Sequential(torch.nn.Dropout(0.3), torch.nn.Linear(4, width))"
    )
    rarely, always = (run_trial(spec_of_file(tmp_path, source, overhead=None, every=n)) for n in (1000, 1))
    assert len(always.measurements) == 60
    assert rarely.losses.tolist() == always.losses.tolist()


def test_the_same_spec_gives_the_same_result_after_a_trial_that_changed_global_state(tmp_path):
    before = run_trial(quadratic_spec())
    disturbing = LINEAR.replace("x, y =", "torch.set_default_dtype(torch.float64); torch.manual_seed(99); x, y =")
    run_trial(spec_of_file(tmp_path, disturbing))
    after = run_trial(quadratic_spec())
    assert before.losses.tolist() == after.losses.tolist()
    assert before.measurements == after.measurements


def test_an_exception_becomes_a_failed_result_with_its_traceback(tmp_path):
    result = run_trial(spec_of_file(tmp_path, "def build(seed, device):\n    raise KeyError('column')"))
    assert result.status == "failed"
    assert result.reason == "building: the workload raised KeyError: 'column' (workload.py:2)"
    assert "workload.py" in result.traceback


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ((".mean()", ".mean(1)"), "step 1: loss_fn: must return a scalar, but got a tensor of shape (32,)"),
        ((".mean()", ".mean().detach()"), "step 1: loss_fn: must return a loss with a gradient"),
        ((".mean()", ".mean().item()"), "step 1: loss_fn: must return a tensor, but got float"),
        (("[(x, y)]", "[]"), "step 1: Training.batches: must yield at least one batch, but got none"),
        (("[(x, y)]", "iter([(x, y)])"), "building: Training.batches: must be re-iterable"),
        (("return Training(", "return dict("), "building: build: must return a stabletune.Training, but got dict"),
        ((".mean()", ".mean() * 0.0"), "step 1: the loss must stay above loss_floor = 0, but got 0.0"),
    ],
    ids=["vector", "detached", "number", "no batches", "one-shot", "no Training", "at the floor"],
)
def test_a_broken_contract_is_a_failed_result_that_names_the_rule(tmp_path, change, reason):
    result = run_trial(spec_of_file(tmp_path, LINEAR.replace(*change)))
    assert result.status == "failed"
    assert reason in result.reason
    assert result.traceback is None


def test_a_loss_that_is_not_finite_ends_the_trial_as_diverged(tmp_path):
    result = run_trial(spec_of_file(tmp_path, LINEAR, params={"lr": 1e30}))
    assert result.status == "diverged"
    assert f"step {result.steps}: the loss is" in result.reason
    assert result.objective is None


def test_a_run_that_is_no_longer_wanted_ends_at_the_next_report(tmp_path):
    slow = LINEAR.replace("x, y =", "torch.set_num_threads(1); x, y =").replace("32", "20000")
    result = run_trial(spec_of_file(tmp_path, slow, steps=10**6), report=lambda progress: False)
    assert result.status == "stopped"
    assert "no longer needed" in result.reason
    assert result.steps < 10**6


def test_eval_source_counts_the_final_eval_value_in_eval_mode(tmp_path):
    source = LINEAR.replace("batches=[(x, y)]", "batches=[(x, y)], eval_fn=lambda m: 2.0 if m.training else 1.0")
    assert run_trial(spec_of_file(tmp_path, source, source="eval")).objective == 1.0
    missing = run_trial(spec_of_file(tmp_path, LINEAR, source="eval"))
    assert "needs eval_batches or eval_fn" in missing.reason


EVALUATED = """
    import torch
    from stabletune import Training

    def loss_fn(model, batch):
        return (model.weight**2).sum() * 0.0 + batch

    def build(seed, device):
        return Training(model=torch.nn.Linear(1, 1), loss_fn=loss_fn, batches=[5.0], eval_batches=[1.0, 3.0])
"""


def test_eval_batches_give_the_mean_loss(tmp_path):
    assert run_trial(spec_of_file(tmp_path, EVALUATED, source="eval")).objective == pytest.approx(2.0)


def test_accumulating_batches_trains_as_one_batch_does(tmp_path):
    whole = run_trial(spec_of_file(tmp_path, LINEAR))
    halves = LINEAR.replace("batches=[(x, y)]", "batches=[(x[:16], y[:16]), (x[16:], y[16:])], accumulate=2")
    split = run_trial(spec_of_file(tmp_path, halves))
    np.testing.assert_allclose(split.losses, whole.losses, rtol=1e-4)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_low_precision_trains_and_measures(tmp_path, precision):
    source = LINEAR.replace("batches=[(x, y)]", f"batches=[(x, y)], precision='{precision}'")
    result = run_trial(spec_of_file(tmp_path, source, params={"lr": 0.05}, overhead=0.5))
    assert result.status == "completed"
    assert result.losses[-1] < result.losses[0]
    assert any(m.sharpness_ratio is not None for m in result.measurements)


def test_param_groups_scale_the_lr_and_carry_their_own_decay(tmp_path):
    groups = "param_groups=[{'params': [model.weight], 'lr_scale': 0.0}, {'params': [model.bias], 'weight_decay': 0.0}]"
    source = LINEAR.replace(
        "batches=[(x, y)]", f"batches=[(x, y)], {groups}, eval_fn=lambda m: (m.weight - w).abs().sum().item()"
    )
    source = source.replace("return Training", "w = model.weight.detach().clone()\n        return Training")
    assert run_trial(spec_of_file(tmp_path, source, source="eval")).objective == 0.0


def test_a_checkpointed_optimizer_state_is_taken_up_with_the_trials_own_settings(tmp_path):
    source = """
        import torch
        from stabletune import Training

        def build(seed, device):
            model = torch.nn.Linear(4, 1)
            old = torch.optim.AdamW(model.parameters(), lr=7.0, betas=(0.5, 0.5))
            loss_fn = lambda m, b: (m(b) ** 2).mean()
            batch = torch.randn(8, 4)
            for _ in range(5):
                loss_fn(model, batch).backward()
                old.step()
            return Training(model=model, loss_fn=loss_fn, batches=[batch], optimizer_state=old.state_dict())
    """
    result = run_trial(spec_of_file(tmp_path, source, overhead=None, every=1, steps=3))
    assert [m.lr for m in result.measurements] == [1e-3] * 3
    assert result.status == "completed"


def test_the_folder_of_the_file_is_importable(tmp_path):
    (tmp_path / "my_data_module.py").write_text("WIDTH = 3\n")
    source = LINEAR.replace("import torch", "import torch\n    from my_data_module import WIDTH", 1)
    assert run_trial(spec_of_file(tmp_path, source)).status == "completed"
