"""One-layer transformer on x / y mod 53, minibatches: memorizes its half of the pairs within 600 steps.

In: modulus, width, batch size and a seed for start and data order. Out: a ``Training`` on half of all pairs, with the
other half as ``eval_batches``. The task and network of Tang et al. (2026): one layer, 4 heads, ReLU, no LayerNorm.
"""

from __future__ import annotations

import torch
from torch.nn import functional
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from stabletune.trial.training import Training

Batch = tuple[torch.Tensor, torch.Tensor]


class OneLayerTransformer(torch.nn.Module):
    """Attention and a ReLU layer with residual connections, read out at the last token."""

    def __init__(self, n_tokens: int, length: int, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.tokens = torch.nn.Embedding(n_tokens, width)
        self.positions = torch.nn.Parameter(torch.randn(length, width) / width**0.5)
        self.query = torch.nn.Linear(width, width, bias=False)
        self.key_value = torch.nn.Linear(width, 2 * width, bias=False)
        self.attended = torch.nn.Linear(width, width, bias=False)
        self.up = torch.nn.Linear(width, 4 * width)
        self.down = torch.nn.Linear(4 * width, width)
        self.readout = torch.nn.Linear(width, n_tokens, bias=False)
        torch.nn.init.normal_(self.tokens.weight, std=width**-0.5)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Map tokens of shape (batch, length) to logits of shape (batch, n_tokens)."""
        x = self.tokens(tokens) + self.positions
        last = x[:, -1] + self.attended(self._attention(x))
        last = last + self.down(torch.relu(self.up(last)))
        logits: torch.Tensor = self.readout(last)
        return logits

    def _attention(self, x: torch.Tensor) -> torch.Tensor:
        """Attend from the last token alone: with one layer the other positions' outputs are never read."""
        q = self.query(x[:, -1:]).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = self.key_value(x).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(1)


def loss_fn(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Return the mean cross-entropy of the quotient."""
    tokens, quotients = batch
    return functional.cross_entropy(model(tokens), quotients)


def build(seed: int, device: torch.device, *, modulus: int = 53, width: int = 128, batch_size: int = 512) -> Training:
    """Build the task x / y = z mod a prime; which pairs train is the same for every seed.

    Args:
        seed: draws the start and the order of the data.
        device: where the pairs live.
        modulus: a prime; there are modulus (modulus - 1) pairs, half of which train.
        width: of the residual stream, a multiple of 4.
        batch_size: pairs per step.
    """
    torch.manual_seed(seed)
    tokens, quotients = (column.to(device) for column in _pairs(modulus))
    half = len(quotients) // 2
    train = TensorDataset(tokens[:half], quotients[:half])
    generator = torch.Generator().manual_seed(seed)
    sampler = BatchSampler(RandomSampler(train, generator=generator), batch_size, drop_last=True)
    return Training(
        model=OneLayerTransformer(modulus + 2, tokens.shape[1], width, heads=4),
        loss_fn=loss_fn,
        batches=DataLoader(train, sampler=sampler, batch_size=None, generator=generator),
        eval_batches=[(tokens[half:], quotients[half:])],
    )


def _pairs(modulus: int) -> Batch:
    """Return tokens (x, divided by, y, equals) and z = x / y for all pairs, in one fixed shuffled order."""
    divisor, equals = modulus, modulus + 1
    rows = [(z * y % modulus, divisor, y, equals, z) for y in range(1, modulus) for z in range(modulus)]
    table = torch.tensor(rows)[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
    return table[:, :4], table[:, 4]
