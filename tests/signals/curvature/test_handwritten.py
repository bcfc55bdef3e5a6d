from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from stabletune.errors import MeasurementError
from stabletune.monitor import StabilityMonitor
from stabletune.signals.curvature.handwritten import displaced
from stabletune.signals.curvature.hvp import LossGraph


def slope(x: Tensor) -> Tensor:
    s = torch.sigmoid(x)
    return s * (1 + x * (1 - s))


class Silu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        ctx.gate = torch.sigmoid(x)
        return x * ctx.gate

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return slope(ctx.saved_tensors[0]) * g


class OnceSilu(Silu):
    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return slope(ctx.saved_tensors[0]) * g


class DetachedSilu(Silu):
    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return slope(ctx.saved_tensors[0].detach()) * g


class KernelSilu(Silu):
    """Writes into a buffer that autograd does not follow, as a kernel of an extension does."""

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        out = torch.empty_like(g)
        out.data.copy_((slope(ctx.saved_tensors[0]) * g).data)
        return out


class NoGradSilu(Silu):
    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        with torch.no_grad():
            return slope(ctx.saved_tensors[0]) * g


class IntermediateSilu(Silu):
    """Keeps what forward has computed without autograd."""

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return ctx.gate * (1 + x * (1 - ctx.gate)) * g


class NumpySilu(Silu):
    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return slope(ctx.saved_tensors[0]) * torch.from_numpy(g.numpy())


class FusedLoss(torch.autograd.Function):
    """The mean square with its gradient computed in forward, as fused losses have it."""

    @staticmethod
    def forward(ctx: Any, out: Tensor) -> Tensor:
        ctx.save_for_backward(2 * out / out.numel())
        return out.square().mean()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return ctx.saved_tensors[0] * g


class Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.round(x * 16) / 16

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g


def net(activation: Callable[[Tensor], Tensor]) -> tuple[nn.ModuleList, Callable[[], Tensor]]:
    torch.manual_seed(0)
    layers = nn.ModuleList([nn.Linear(3, 6), nn.Linear(6, 1)])
    x = torch.randn(16, 3)
    return layers, lambda: (layers[1](activation(layers[0](x))) - x.sin().mean(1, keepdim=True)).square().mean()


def measure(model: nn.Module, closure: Callable[[], Tensor], readings: int = 1) -> float:
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    monitor = StabilityMonitor(model, optimizer, every=1)
    for _ in range(readings):
        optimizer.zero_grad()
        closure().backward()
        optimizer.step()
        before = [p.detach().clone() for p in model.parameters()]
        try:
            reading = monitor.step(1.0, closure)
        finally:
            assert all(torch.equal(p, value) for p, value in zip(model.parameters(), before, strict=True))
    assert reading is not None and reading.sharpness_ratio is not None
    return reading.sharpness_ratio


def test_a_custom_function_with_a_right_second_derivative_is_measured() -> None:
    ours, native = (measure(*net(f), readings=3) for f in (Silu.apply, nn.functional.silu))
    assert ours == pytest.approx(native, rel=1e-3)


@pytest.mark.parametrize("function", [DetachedSilu, KernelSilu, NoGradSilu, IntermediateSilu])
def test_a_second_derivative_that_drops_out_in_silence_is_named(function: type[Silu]) -> None:
    with pytest.raises(MeasurementError, match=rf"step 1: .*off by \d+% \({function.__name__}\)\. Give a probe"):
        measure(*net(function.apply))


def test_a_function_marked_as_differentiable_once_is_refused() -> None:
    with pytest.raises(MeasurementError, match=r"step 1: .*marked with once_differentiable \(OnceSilu\)\. Give"):
        measure(*net(OnceSilu.apply))


def test_a_function_without_a_second_derivative_is_refused() -> None:
    with pytest.raises(MeasurementError, match=r"step 1: .*differentiable twice, but autograd said: .*custom autograd"):
        measure(*net(NumpySilu.apply))


def test_a_fused_loss_with_a_constant_gradient_is_named() -> None:
    model = nn.Linear(3, 1)
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    with pytest.raises(MeasurementError, match=r"off by 100% \(FusedLoss\)"):
        measure(model, lambda: FusedLoss.apply(model(x)))


def test_rounding_with_a_straight_through_gradient_is_not_accused() -> None:
    assert measure(*net(Rounded.apply)) > 0


@pytest.mark.parametrize("random", [True, False])
def test_dropout_beside_a_custom_function_is_not_accused(random: bool) -> None:
    generator = torch.Generator().manual_seed(0)

    def noise(x: Tensor) -> Tensor:  # of its own generator: another mask at each call
        return x * (torch.rand(x.shape, generator=generator) > 0.3)

    drop = noise if random else lambda x: nn.functional.dropout(x, 0.3)
    assert measure(*net(lambda x: drop(Silu.apply(x)))) > 0


def test_hooks_that_mask_are_measured_and_hooks_that_scale_or_clip_are_named() -> None:
    mask = (torch.arange(18) % 2).float().reshape(6, 3)
    model, closure = net(torch.tanh)
    model[0].weight.register_hook(lambda g: g * mask)
    assert measure(model, closure) > 0
    for change in (lambda g: 0.1 * g, lambda g: g.clamp(-1e-3, 1e-3), lambda g: g.detach()):
        model, closure = net(torch.tanh)
        model[0].weight.register_hook(change)
        with pytest.raises(MeasurementError, match="a hook on a parameter"):
            measure(model, closure)


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_a_reentrant_checkpoint_is_refused_and_the_other_measured(use_reentrant: bool) -> None:
    model, _ = net(torch.tanh)
    x = torch.randn(16, 3, requires_grad=True)

    def closure() -> Tensor:
        hidden = checkpoint(model[0], x, use_reentrant=use_reentrant)
        assert isinstance(hidden, Tensor)
        return model[1](torch.tanh(hidden)).square().mean()

    graph_of = lambda: LossGraph(closure, list(model.parameters()))  # noqa: E731
    if use_reentrant:
        with pytest.raises(MeasurementError, match=r"hides 2 parameters \(CheckpointFunction\).*use_reentrant=False"):
            graph_of()
    else:
        assert len(graph_of().params) == 4
    assert x.grad is None and all(p.grad is None for p in model.parameters())


def test_an_unused_parameter_beside_a_custom_function_is_no_error() -> None:
    used, unused = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))
    assert len(LossGraph(lambda: Silu.apply(used).sum(), [used, unused]).params) == 1


def test_displaced_parameters_come_back_after_an_error() -> None:
    param = nn.Parameter(torch.full((3,), 0.1))
    with pytest.raises(RuntimeError, match="mine"), displaced([param], torch.ones(3), 1e-3):
        assert not torch.equal(param.detach(), torch.full((3,), 0.1))
        raise RuntimeError("mine")
    assert torch.equal(param.detach(), torch.full((3,), 0.1))
    assert param._version == 0
