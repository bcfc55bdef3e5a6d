"""What only a CUDA device can show: `make gpu-check` runs these, they are skipped where there is none."""

import numpy as np
import pytest
import torch

from stabletune.monitor import StabilityMonitor
from stabletune.records import WorkloadReference
from stabletune.trial.worker import run_trial
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
