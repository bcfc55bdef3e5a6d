"""What only a CUDA device can show: `make gpu-check` runs these, they are skipped where there is none."""

import textwrap

import numpy as np
import pytest
import torch

from stabletune import StabilityGuard, search
from stabletune.errors import ResourceError
from stabletune.monitor import StabilityMonitor
from stabletune.records import WorkloadReference
from stabletune.trial.worker import run_trial
from stabletune.trial.workloads.tanh_regression import build
from tests.trial.specs import quadratic_spec, spec_of_file

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]


def on_both(spec_on):
    return run_trial(spec_on("cpu")), run_trial(spec_on("cuda"))


def test_a_worker_trains_and_measures_on_cuda_as_on_the_cpu():
    def spec_on(device):
        return quadratic_spec(
            workload=WorkloadReference("diabetes_mlp"), device=device, overhead=None, every=5, stops_on_spike=False
        )

    cpu, cuda = on_both(spec_on)
    assert (cuda.status, cuda.device) == ("completed", torch.cuda.get_device_name())
    np.testing.assert_allclose(cuda.losses, cpu.losses, rtol=0.01)
    for name in ("sharpness_ratio", "gradient_curvature_ratio", "v_hat_staleness"):
        pairs = [(getattr(b, name), getattr(a, name)) for a, b in zip(cpu.measurements, cuda.measurements, strict=True)]
        assert len(pairs) == 12 and None not in sum(pairs, ())
        np.testing.assert_allclose(*np.array(pairs).T, rtol=0.01)


ATTENTION = """
    import torch
    from stabletune import Training

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = torch.nn.MultiheadAttention(16, 2, batch_first=True)
            self.head = torch.nn.Sequential(torch.nn.LayerNorm(16), torch.nn.Linear(16, 1))

        def forward(self, x):
            return self.head(self.attention(x, x, x, need_weights=False)[0])

    def build(seed, device):
        draw = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)
        batch = {"x": torch.randn(8, 6, 16, generator=draw), "y": torch.randn(8, 6, 1, generator=draw)}
        loss_fn = lambda m, b: ((m(b["x"]) - b["y"]) ** 2).mean()
        return Training(model=Net(), loss_fn=loss_fn, batches=[batch])
"""


def test_attention_whose_fast_kernels_have_no_second_derivative_is_measured_on_cuda(tmp_path):
    cpu, cuda = on_both(lambda device: spec_of_file(tmp_path, ATTENTION, device=device, overhead=None, every=20))
    assert cuda.status == "completed", cuda.reason
    np.testing.assert_allclose(cuda.losses, cpu.losses, rtol=0.01)
    ratios = [[m.sharpness_ratio for m in result.measurements] for result in (cuda, cpu)]
    np.testing.assert_allclose(*ratios, rtol=0.01)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (torch.optim.Adam, {"capturable": True}),
        (torch.optim.AdamW, {"fused": True}),
        (torch.optim.NAdam, {"capturable": True}),
        (torch.optim.RAdam, {"capturable": True, "betas": (0.9, 0.95)}),
        (torch.optim.RMSprop, {"capturable": True, "centered": True, "momentum": 0.5}),
        (torch.optim.Adagrad, {"fused": False}),
    ],
)
def test_state_kept_on_cuda_is_read_as_on_the_cpu(kind, settings):
    ratios = []
    for device in ("cpu", "cuda"):
        draw = torch.Generator().manual_seed(0)
        x = torch.randn(30, 3, generator=draw).to(device)
        model = torch.nn.Linear(3, 1, device=device)
        torch.nn.init.constant_(model.weight, 0.1)
        torch.nn.init.constant_(model.bias, 0.0)
        on_device = (
            settings if device == "cuda" else {name: settings[name] for name in settings if name != "capturable"}
        )
        optimizer = kind(model.parameters(), lr=0.01, **on_device)
        monitor = StabilityMonitor(model, optimizer, every=1)

        def closure(model=model, x=x):
            return (model(x)[:, 0] - x[:, 0].sin()).square().mean()

        readings = []
        for _ in range(10):
            optimizer.zero_grad()
            loss = closure()
            loss.backward()
            optimizer.step()
            readings.append(monitor.step(loss, closure).sharpness_ratio)
        ratios.append(readings)
    np.testing.assert_allclose(*ratios, rtol=0.01)


def guarded(device, **settings):
    """Every lr and beta2 that a guard gives a step, and the losses, of a regression that spikes."""
    torch.manual_seed(0)
    training = build(0, torch.device("cpu"))
    model = training.model.to(device)
    ((x, y),) = training.batches
    batch = (x.to(device), y.to(device))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02, betas=(0.9, 0.999), **settings)
    guard, seen = StabilityGuard(StabilityMonitor(model, optimizer), "act"), []
    optimizer.register_step_pre_hook(
        lambda optimizer, args, kwargs: seen.append(tuple(optimizer.param_groups[0][name] for name in ("lr", "betas")))
    )
    losses = []
    for step in range(60):
        optimizer.zero_grad()
        loss = training.loss_fn(model, batch) * (30.0 if step == 40 else 1.0)
        loss.backward()
        optimizer.step()
        guard.step(loss)
        losses.append(float(loss.detach()))
    return seen, losses


@pytest.mark.parametrize("settings", [{"fused": True}, {"capturable": True}, {"foreach": True}])
def test_a_guard_changes_on_cuda_what_it_changes_on_the_cpu(settings):
    on_cpu, cpu_losses = guarded("cpu")
    on_cuda, cuda_losses = guarded("cuda", **settings)
    assert {betas[1] for _, betas in on_cpu} == {0.9, 0.999}
    assert on_cuda == on_cpu
    np.testing.assert_allclose(cuda_losses, cpu_losses, rtol=0.01)


SEES = """
    import torch
    from stabletune import Training

    def build(seed, device):
        expected = {n_gpus}
        if torch.cuda.device_count() != expected:
            raise RuntimeError(f"sees {{torch.cuda.device_count()}} GPUs where {{expected}} are given")
        model = torch.nn.Linear(3, 1)
        draw = torch.Generator().manual_seed(seed)
        x, y = torch.randn(16, 3, generator=draw), torch.randn(16, 1, generator=draw)
        return Training(model=model, loss_fn=lambda m, b: ((m(b[0]) - b[1]) ** 2).mean(), batches=[(x, y)])
"""


@pytest.mark.ray
@pytest.mark.parametrize(("gpus", "n_gpus", "device"), [(0, 0, "cpu"), (0.25, 1, "cuda"), (1, 1, "cuda")])
def test_trials_of_a_search_see_the_gpus_that_are_theirs_and_no_other(write_config, tmp_path, gpus, n_gpus, device):
    (tmp_path / "sees.py").write_text(textwrap.dedent(SEES.format(n_gpus=n_gpus)))
    config = write_config(
        ("workload: quadratic\n", "workload: sees.py:build\n"),
        ("workload_args: {jitter: 0.1, curvatures: [1.0, 30.0]}\n", ""),
        ("budget:", f"resources: {{gpus_per_trial: {gpus}, max_concurrent: 4}}\nbudget:"),
    )
    result = search(config, output=tmp_path / "out")
    assert result.recommendation is not None, result.message
    named = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    assert result.recommendation.provenance["device"] == named


@pytest.mark.ray
def test_more_gpus_than_there_are_is_refused_with_what_there_is(write_config, tmp_path):
    config = write_config(("budget:", f"resources: {{gpus_per_trial: {torch.cuda.device_count() + 1}}}\nbudget:"))
    with pytest.raises(ResourceError, match=r"resources\.gpus_per_trial: must be at most"):
        search(config, output=tmp_path / "out")
