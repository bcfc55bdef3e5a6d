"""The three networks that everything is measured on: an MLP, a CNN and a transformer, with data that can be learned."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional

Batch = tuple[Tensor, Tensor]
N_SYMBOLS, CONTEXT, WIDTH, HEADS = 96, 32, 128, 4


@dataclasses.dataclass(frozen=True)
class Task:
    """A model with its criterion, a fixed probe batch and an endless stream of minibatches."""

    name: str
    model: torch.nn.Module
    criterion: torch.nn.Module
    probe: Batch
    batches: Iterator[Batch]
    lr: float = 1e-3
    beta2: float = 0.999

    def loss(self, batch: Batch) -> Tensor:
        value: Tensor = self.criterion(self.model(batch[0]), batch[1])
        return value

    def optimizer(self) -> torch.optim.AdamW:
        return torch.optim.AdamW(self.model.parameters(), lr=self.lr, betas=(0.9, self.beta2), fused=True)


def mlp(seed: int = 0, *, lr: float = 1e-3, beta2: float = 0.999, batch_size: int = 512) -> Task:
    """269,322 parameters; ten classes by a random network of 16 hidden causes, seen through 784 noisy inputs."""
    data = torch.Generator().manual_seed(0)
    causes = torch.randn(16384, 16, generator=data)
    hidden = torch.tanh(causes @ torch.randn(16, 32, generator=data))
    labels = (hidden @ torch.randn(32, 10, generator=data)).argmax(dim=1)
    inputs = causes @ torch.randn(16, 784, generator=data) / 4 + torch.randn(16384, 784, generator=data)
    torch.manual_seed(seed)
    model = torch.nn.Sequential(
        torch.nn.Linear(784, 256), torch.nn.Tanh(), torch.nn.Linear(256, 256), torch.nn.Tanh(), torch.nn.Linear(256, 10)
    )
    return _task("MLP", model, (inputs, labels), batch_size, lr, beta2)


def cnn(seed: int = 0, *, lr: float = 1e-3, beta2: float = 0.999, batch_size: int = 256) -> Task:
    """3,818 parameters; scikit-learn's digits, 8 x 8."""
    digits = load_digits()
    images = torch.tensor(digits.images / 16.0).float().unsqueeze(1)
    torch.manual_seed(seed)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(8, 16, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(256, 10),
    )
    return _task("CNN", model, (images, torch.tensor(digits.target)), batch_size, lr, beta2)


def transformer(seed: int = 0, *, lr: float = 1e-3, beta2: float = 0.999, batch_size: int = 64) -> Task:
    """425,568 parameters; text of 400 made-up words, 32 characters at a time."""
    windows = _text(40_000).unfold(0, CONTEXT + 1, 3)
    torch.manual_seed(seed)
    return _task("transformer", _Transformer(), (windows[:, :-1], windows[:, 1:]), batch_size, lr, beta2)


TASKS: dict[str, Callable[..., Task]] = {"MLP": mlp, "CNN": cnn, "transformer": transformer}


def forever(data: Batch, batch_size: int, seed: int) -> Iterator[Batch]:
    """Minibatches drawn with a generator of their own, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        for rows in torch.split(torch.randperm(len(data[1]), generator=generator), batch_size):
            if len(rows) == batch_size:
                yield data[0][rows], data[1][rows]


def _task(name: str, model: torch.nn.Module, data: Batch, batch_size: int, lr: float, beta2: float) -> Task:
    probe = next(forever(data, batch_size, seed=12345))
    batches = forever(data, batch_size, seed=1)
    return Task(name, model, torch.nn.CrossEntropyLoss(), probe, batches, lr, beta2)


def _text(length: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    letters = 1.0 / torch.arange(2.0, N_SYMBOLS + 1)
    sizes = torch.randint(2, 9, (400,), generator=generator).tolist()
    words = [torch.multinomial(letters, n, replacement=True, generator=generator) + 1 for n in sizes]
    order = torch.multinomial(1.0 / torch.arange(1.0, 401), length // 3, replacement=True, generator=generator)
    space = torch.zeros(1, dtype=torch.int64)
    return torch.cat([part for word in order.tolist() for part in (words[word], space)])[:length]


class _Block(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before = torch.nn.LayerNorm(WIDTH)
        self.qkv = torch.nn.Linear(WIDTH, 3 * WIDTH)
        self.attended = torch.nn.Linear(WIDTH, WIDTH)
        self.feed_forward = torch.nn.Sequential(
            torch.nn.LayerNorm(WIDTH),
            torch.nn.Linear(WIDTH, 4 * WIDTH),
            torch.nn.GELU(),
            torch.nn.Linear(4 * WIDTH, WIDTH),
        )

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.before(x)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.attended(mixed.transpose(1, 2).flatten(-2))
        result: Tensor = x + self.feed_forward(x)
        return result


class _Transformer(torch.nn.Module):
    """Two blocks; logits of shape (batch, symbols, length), as ``CrossEntropyLoss`` wants them."""

    def __init__(self) -> None:
        super().__init__()
        self.symbols = torch.nn.Embedding(N_SYMBOLS, WIDTH)
        self.positions = torch.nn.Embedding(CONTEXT, WIDTH)
        self.blocks = torch.nn.Sequential(_Block(), _Block())
        self.norm = torch.nn.LayerNorm(WIDTH)
        self.readout = torch.nn.Linear(WIDTH, N_SYMBOLS)
        for embedding in (self.symbols, self.positions):
            torch.nn.init.normal_(embedding.weight, std=0.1)

    def forward(self, text: Tensor) -> Tensor:
        x = self.symbols(text) + self.positions.weight[: text.shape[1]]
        logits: Tensor = self.readout(self.norm(self.blocks(x)))
        return logits.transpose(1, 2)
