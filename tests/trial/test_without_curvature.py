"""A loss without a second derivative costs a trial its curvature, not its life."""

import pytest

from stabletune.trial.worker import run_trial
from tests.trial.specs import spec_of_file

ONCE = """
    import torch
    from torch.autograd.function import once_differentiable
    from stabletune import Training

    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        @once_differentiable
        def backward(ctx, g):
            return 2 * ctx.saved_tensors[0] * g

    def build(seed, device):
        x, y = torch.randn(32, 4), torch.randn(32, 1)
        model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
        return Training(model=model, loss_fn=lambda m, b: Square.apply(m(b[0]) - b[1]).mean(), batches=[(x, y)])
"""
OWN_LOOP = """
    import torch

    def train(trial):
        x = torch.randn(32, 4)
        model = torch.nn.Linear(4, 1)
        trial.watch(model)
        optimizer = trial.build_optimizer(model.parameters())
        for step in range(trial.steps):
            optimizer.zero_grad()
            loss = (model(x) - 1).square().mean()
            loss.backward()
            optimizer.step()
            if trial.step(loss, lambda: loss.detach()):
                break
"""


@pytest.mark.parametrize("settings", [{}, {"overhead": None, "every": 10}], ids=["overhead", "every"])
def test_the_trial_goes_on_with_the_free_signals_and_says_so_once(tmp_path, settings):
    result = run_trial(spec_of_file(tmp_path, ONCE, **settings))
    assert result.status == "completed"
    assert result.steps == 60
    assert result.objective is not None
    assert "completed all 60 steps" in result.reason
    assert result.reason.count("; without curvature since step 10: StabilityMonitor: ") == 1
    assert "(Square). Give a probe" in result.reason
    assert result.measurements and all(m.sharpness_ratio is None for m in result.measurements)
    assert any(m.v_hat_staleness is not None for m in result.measurements if m.step > 10)
    assert 0 < result.overhead <= 0.15


def test_losing_curvature_changes_no_loss(tmp_path):
    rarely = run_trial(spec_of_file(tmp_path, ONCE, overhead=None, every=1000))
    always = run_trial(spec_of_file(tmp_path, ONCE, overhead=None, every=1))
    assert "without curvature since step 1:" in always.reason
    assert "without curvature" not in rarely.reason
    assert rarely.losses.tolist() == always.losses.tolist()


def test_an_own_loop_goes_on_too(tmp_path):
    result = run_trial(spec_of_file(tmp_path, OWN_LOOP, function="train"))
    assert result.status == "completed"
    assert "without curvature since step 10: StabilityMonitor: the loss of the probe or closure" in result.reason


def test_a_trial_that_diverges_without_curvature_keeps_both_sentences(tmp_path):
    source = ONCE.replace("batches=[(x, y)]", "batches=20 * [(x, y)] + [(x * float('nan'), y)]")
    result = run_trial(spec_of_file(tmp_path, source, overhead=None, every=1))
    assert result.status == "diverged"
    assert "step 21: the loss is nan" in result.reason and "; without curvature since step 1: " in result.reason


def test_a_product_that_is_not_finite_ends_nothing(tmp_path):
    source = """
        import torch
        from stabletune import Training

        class Net(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.p = torch.nn.Parameter(torch.ones(3))

            def forward(self):
                return self.p

        def loss_fn(model, batch):
            p = model.p
            kink = (p - p.detach()).abs().pow(1.5).sum() if 0.5 < p[0].item() < 0.97 else 0.0
            return (p.square() + 1).sum() + kink

        def build(seed, device):
            return Training(model=Net(), loss_fn=loss_fn, batches=[0])
    """
    result = run_trial(spec_of_file(tmp_path, source, params={"lr": 0.02}, overhead=None, every=1))
    found = [m.sharpness_ratio is not None for m in result.measurements]
    assert result.status == "completed" and "without curvature" not in result.reason
    assert found[0] and not found[5] and found[-1]
    assert all(m.gradient_norm is not None for m in result.measurements)
