"""Networks that were met after the rules had been chosen.

What went wrong on ``UNSEEN`` changed rules once more; nothing was changed after ``LAST``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from sklearn.datasets import load_digits, load_wine
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.diagnosis.tasks import HELD_OUT, TUNING, Task, mislabeled, mlp, split, standardized


def wine(seed: int) -> Task:
    """SiLU network with LayerNorm on scikit-learn's wine data, full batch, cross-entropy."""
    inputs, labels = load_wine(return_X_y=True)
    readout = nn.Linear(24, 3)
    model = nn.Sequential(nn.Linear(13, 24), nn.LayerNorm(24), nn.SiLU(), nn.Linear(24, 24), nn.SiLU(), readout)
    batch = (standardized(torch.tensor(inputs).float()), mislabeled(labels, n_classes=3))
    return Task(model, functional.cross_entropy, [batch], readout)


class _LastOfLstm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(1, width, batch_first=True)
        self.readout = nn.Linear(width, 1)

    def forward(self, values: Tensor) -> Tensor:
        out: Tensor = self.readout(self.recurrent(values)[0][:, -1])
        return out


def lstm_sine(seed: int) -> Task:
    """LSTM that continues sine waves of many frequencies, eight minibatches, squared error."""
    generator = torch.Generator().manual_seed(3)
    frequency, phase = 0.2 + torch.rand(256, 1, generator=generator), 6.3 * torch.rand(256, 1, generator=generator)
    waves = torch.sin(frequency * torch.arange(13) + phase)
    model = _LastOfLstm(24)
    return Task(model, functional.mse_loss, split((waves[:, :-1].unsqueeze(-1), waves[:, -1:]), 8), model.readout)


class _Patches(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed = nn.Linear(4, width)
        self.positions = nn.Parameter(torch.randn(16, width) / width**0.5)
        self.layer = nn.TransformerEncoderLayer(width, 2, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.readout = nn.Linear(width, 10)

    def forward(self, patches: Tensor) -> Tensor:
        out: Tensor = self.readout(self.layer(self.embed(patches) + self.positions).mean(dim=1))
        return out


def patch_transformer(seed: int) -> Task:
    """Torch's own encoder layer on 2 x 2 patches of digits, ten minibatches, cross-entropy."""
    digits = load_digits()
    images = torch.tensor(digits.images[:640] / 16.0).float()
    patches = images.unfold(1, 2, 2).unfold(2, 2, 2).reshape(640, 16, 4)
    model = _Patches(32)
    batches = split((patches, mislabeled(digits.target[:640])), 10)
    return Task(model, functional.cross_entropy, batches, model.readout)


class _Sine(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        """Bends by a sine."""
        return torch.sin(3.0 * x)


def sine_network(seed: int) -> Task:
    """Sine network that paints one digit from its coordinates, full batch, squared error."""
    image = torch.tensor(load_digits().images[5] / 16.0).float()
    axis = torch.linspace(-1.0, 1.0, 8)
    places = torch.cartesian_prod(axis, axis)
    model = mlp(2, 40, 1, _Sine)
    return Task(model, functional.mse_loss, [(places, image.reshape(-1, 1))], model[-1])


def conv_waves(seed: int) -> Task:
    """One-dimensional convolutions with GroupNorm that tell four kinds of waves, nine minibatches, cross-entropy."""
    generator = torch.Generator().manual_seed(5)
    labels = torch.randint(0, 4, (576,), generator=generator)
    time = torch.arange(32) + 8 * torch.rand(576, 1, generator=generator)
    waves = torch.sin((0.3 + 0.12 * labels).unsqueeze(1) * time) + 0.4 * torch.randn(576, 32, generator=generator)
    readout = nn.Linear(16, 4)
    layers = [nn.Conv1d(1, 16, 5, stride=2), nn.GroupNorm(4, 16), nn.GELU(), nn.Conv1d(16, 16, 5), nn.GELU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), readout)
    return Task(model, functional.cross_entropy, split((waves.unsqueeze(1), labels), 9), readout)


class _Pooled(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed = nn.Linear(3, width)
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.readout = nn.Linear(width, 1)

    def forward(self, items: Tensor) -> Tensor:
        x = torch.tanh(self.embed(items))
        out: Tensor = self.readout((x + self.attention(x, x, x, need_weights=False)[0]).mean(dim=1))
        return out


def attention_sum(seed: int) -> Task:
    """Attention that learns a product summed over a set, twelve minibatches, Huber loss."""
    generator = torch.Generator().manual_seed(9)
    items = torch.randn(480, 6, 3, generator=generator)
    targets = items.prod(dim=2).sum(dim=1, keepdim=True) + items[:, :, 0].square().mean(dim=1, keepdim=True)
    model = _Pooled(32)
    return Task(model, functional.smooth_l1_loss, split((items, targets), 12), model.readout)


UNSEEN: dict[str, Callable[[int], Task]] = {
    "wine": wine,
    "lstm_sine": lstm_sine,
    "patch_transformer": patch_transformer,
}
LAST: dict[str, Callable[[int], Task]] = {
    "sine_network": sine_network,
    "conv_waves": conv_waves,
    "attention_sum": attention_sum,
}
TASKS = TUNING | HELD_OUT | UNSEEN | LAST
