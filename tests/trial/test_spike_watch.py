"""What a trial records for its diagnoses, through the public ways; training is the same without."""

import numpy as np
import pytest
import torch

from stabletune.judgement.history import History
from stabletune.judgement.onset import Onset
from stabletune.judgement.spikes import find_spikes
from stabletune.optim import InstrumentedAdamW
from stabletune.signals.gradient_norm import held_gradient_norm
from stabletune.signals.optimizer_state.reading import read_tensors
from stabletune.trial.worker import run_trial
from tests.trial.specs import quadratic_spec, spec_of_file

OWN_LOOP = """
    import torch

    def train(trial, *, fault="none"):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3))
        data = torch.randn(8, 32, 4)
        labels = (data.sum(-1).sign() + 1).long()
        trial.watch(model)
        optimizer = trial.build_optimizer(model.parameters())
        for step in range(trial.steps):
            x, y = data[step % 8], labels[step % 8]
            if fault == "batch" and step >= 150 and step % 8 == 3:
                x = -8 * x
            if fault == "rate" and step == 150:
                optimizer.param_groups[0]["lr"] *= 60
            if fault == "kick" and step == 150:
                with torch.no_grad():
                    for p in model.parameters():
                        p.add_(torch.randn_like(p), alpha=2.0)
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(x), y)
            if fault == "overflow" and step >= 150:
                loss = (loss * 5000).exp().log() / 5000
            loss.backward()
            optimizer.step()
            if trial.step(loss, lambda: torch.nn.functional.cross_entropy(model(x), y)):
                break
        trial.final = [p.detach().clone() for p in model.parameters()]
"""


def run(folder, fault, **changes):
    given = {"steps": 200, "stops_on_spike": False, "predicts": False, "params": {"lr": 3e-3}}
    return run_trial(spec_of_file(folder, OWN_LOOP, "train", workload_args={"fault": fault}, **{**given, **changes}))


def test_every_step_has_its_gradient_norm_and_learning_rate(tmp_path):
    result = run(tmp_path, "none")
    assert result.gradient_norms.shape == result.learning_rates.shape == result.losses.shape
    assert np.all(result.gradient_norms > 0) and np.all(result.learning_rates == 3e-3)
    assert result.inspections == () and result.diagnoses == () and result.main_diagnosis is None


def test_the_gradient_norm_of_a_quadratic_is_its_slope():
    result = run_trial(quadratic_spec(steps=5, params={"weight_decay": 0.0}))
    assert result.gradient_norms == pytest.approx(np.sqrt(2 * result.losses), rel=1e-5)


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ("batch", "bad batch"),
        ("rate", "schedule jump"),
        ("kick", "unexplained"),
        ("overflow", "precision or overflow"),
    ],
)
def test_a_fault_built_into_a_loop_of_the_users_own_is_named(tmp_path, fault, cause):
    result = run(tmp_path, fault)
    assert result.diagnoses, result.reason
    first = result.diagnoses[0]
    assert first.cause == cause, first.evidence
    assert 150 <= first.step <= 170
    assert first.evidence.endswith(".") and first.remedy.endswith(".")
    assert result.main_diagnosis in result.diagnoses


def test_logits_are_looked_at_where_there_are_any(tmp_path):
    assert any(m.largest_logits for m in run(tmp_path, "none").measurements)
    quadratic = run_trial(quadratic_spec(steps=120))
    assert not any(m.largest_logits for m in quadratic.measurements)


def test_training_takes_the_same_steps_however_closely_it_is_watched(tmp_path):
    losses = [
        run(tmp_path, "batch", **signals).losses for signals in ({}, {"overhead": 0.01}, {"overhead": None, "every": 3})
    ]
    assert np.array_equal(losses[0], losses[1]) and np.array_equal(losses[0], losses[2])


def test_a_batch_with_a_bad_value_is_told_from_an_overflow_in_the_standard_loop(tmp_path):
    code = """
        import torch
        from stabletune import Training

        def build(seed, device):
            torch.manual_seed(0)
            model = torch.nn.Linear(4, 1)
            batches = [(torch.randn(16, 4), torch.randn(16, 1)) for _ in range(40)]
            batches[30][0][2, 1] = float("nan")
            return Training(model=model, loss_fn=lambda m, b: (m(b[0]) - b[1]).square().mean(), batches=batches)
    """
    result = run_trial(spec_of_file(tmp_path, code, steps=60))
    (found,) = result.diagnoses
    assert result.status == "diverged" and (found.step, found.cause) == (31, "bad batch")
    assert not result.inspections[0].has_finite_inputs


def test_accumulated_batches_are_looked_at_as_the_one_that_they_make_up(tmp_path):
    code = """
        import torch
        from stabletune import Training

        def build(seed, device, *, parts=1):
            torch.manual_seed(0)
            model = torch.nn.Linear(4, 1)
            batches = [(torch.randn(16, 4), torch.randn(16, 1)) for _ in range(40)]
            batches[30] = (batches[30][0], 50 + batches[30][1])
            pieces = [(x[i::parts], y[i::parts]) for x, y in batches for i in range(parts)]
            loss_fn = lambda m, b: (m(b[0]) - b[1]).square().mean()
            return Training(model=model, loss_fn=loss_fn, batches=pieces, accumulate=parts)
    """
    whole, parted = (
        run_trial(spec_of_file(tmp_path, code, steps=60, stops_on_spike=False, workload_args={"parts": parts}))
        for parts in (1, 4)
    )
    (seen,), (other,) = whole.inspections[:1], parted.inspections[:1]
    assert (seen.step, other.step) == (31, 31) and seen.suspect.gradient_norm > 10 * seen.others[-1].gradient_norm
    for a, b in zip((seen.suspect, *seen.others), (other.suspect, *other.others), strict=True):
        assert (a.loss, a.gradient_norm or 0.0) == pytest.approx((b.loss, b.gradient_norm or 0.0), rel=1e-5)


def test_an_output_too_large_for_float16_is_told_by_float64(tmp_path):
    code = """
        import torch
        from stabletune import Training

        def build(seed, device):
            torch.manual_seed(0)
            model = torch.nn.Linear(4, 1)
            x = torch.randn(32, 4)
            return Training(
                model=model,
                loss_fn=lambda m, b: (m(b[0]) - b[1]).square().mean(),
                batches=[(x, 2e5 + x.sum(1, keepdim=True))],
                precision="float16",
            )
    """
    result = run_trial(spec_of_file(tmp_path, code, steps=300, params={"lr": 1e3, "weight_decay": 0.0}))
    assert result.status == "diverged"
    assert result.diagnoses[-1].cause == "precision or overflow"
    assert "in float64" in result.diagnoses[-1].evidence and "bfloat16" in result.diagnoses[-1].remedy


def test_torch_is_left_in_the_state_it_had(tmp_path):
    run(tmp_path, "kick")
    assert torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")


SPIKING = """
    import torch
    from torch import nn

    class Checked(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 1)

        def forward(self, x):
            hidden = self.first(x).tanh()
            if hidden.dtype != torch.float32:
                raise ValueError("float32 wanted")
            return self.last(hidden)

    def train(trial, *, kind):
        torch.manual_seed(0)
        model = Checked()
        data, target = torch.randn(64, 4), torch.randn(64, 1)
        adjacency = torch.eye(64).to_sparse() if kind == "sparse" else torch.eye(64)
        trial.watch(model)
        optimizer = trial.build_optimizer(model.parameters())
        for step in range(trial.steps):
            if kind == "frozen" and step == 50:
                model.first.weight.requires_grad_(False)
            wanted = 30 * target if step >= 90 else target

            def loss_now():
                return (torch.mm(adjacency, model(data)) - wanted).square().mean()

            optimizer.zero_grad()
            loss = loss_now()
            loss.backward()
            optimizer.step()
            if trial.step(loss, (lambda: loss.detach()) if kind == "detached" else loss_now):
                break
"""


@pytest.mark.parametrize("kind", ["checks its format", "sparse", "frozen", "detached"])
def test_a_spike_stops_a_trial_whose_loss_cannot_be_looked_at_as_usual(tmp_path, kind):
    spec = spec_of_file(tmp_path, SPIKING, "train", workload_args={"kind": kind}, steps=200, params={"lr": 1e-3})
    result = run_trial(spec)
    assert result.status == "stopped", result.traceback
    assert "the loss spiked" in result.reason and result.diagnoses
    assert ("without a closer look since step 91: RuntimeError" in result.reason) == (kind == "detached")


def test_where_the_forward_pass_is_random_float64_is_not_asked(tmp_path):
    code = """
        import torch
        from stabletune import Training

        def build(seed, device):
            torch.manual_seed(0)
            model = torch.nn.Sequential(torch.nn.Linear(4, 32), torch.nn.Dropout(0.5), torch.nn.Linear(32, 1))
            batches = [(torch.randn(4, 4), torch.randn(4, 1)) for _ in range(200)]
            batches[120] = (50 * batches[120][0], batches[120][1])
            return Training(model=model, loss_fn=lambda m, b: (m(b[0]) - b[1]).square().mean(), batches=batches)
    """
    result = run_trial(spec_of_file(tmp_path, code, steps=160, params={"lr": 1e-3}))
    assert result.inspections and all(look.precise_loss is None for look in result.inspections)


MITIGATED = [{}, {"beta2_exponent": 0.8}, {"max_grad_norm": 0.3}, {"update_clip": 0.5}]


@pytest.mark.parametrize("mitigation", MITIGATED, ids=str)
def test_the_second_moments_of_a_diagnosis_are_those_of_the_optimizer(mitigation):
    torch.manual_seed(0)
    param = torch.nn.Parameter(torch.zeros(30))
    optimizer = InstrumentedAdamW([param], betas=(0.9, 0.99), **mitigation)
    history = History(quadratic_spec(params={"beta2": 0.99, **mitigation}), find_spikes([]))
    sums = []
    for step in range(80):
        param.grad = torch.randn(30) * 0.95**step
        optimizer.step()
        history.add(1.0, gradient_norm=held_gradient_norm(optimizer))
        sums.append(sum(float(tensor.v_hat.sum()) for tensor in read_tensors(optimizer)))
    assert Onset(history, 80).v_hat == pytest.approx(np.array(sums), rel=1e-4)


@pytest.mark.parametrize("mitigation", [{"second_moment_reset": 5.0}, {"second_moment_clip": 10.0}, {"amsgrad": True}])
def test_second_moments_that_the_gradient_norms_do_not_tell_are_unknown(mitigation):
    history = History(quadratic_spec(params=mitigation), find_spikes([]))
    for _ in range(80):
        history.add(1.0, gradient_norm=1.0)
    onset = Onset(history, 80)
    assert np.isnan(onset.v_hat).all() and onset.stalest is None and onset.growth_by_v_hat(10, 70) is None
