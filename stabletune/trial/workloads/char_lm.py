"""Small causal transformer on fourteen sonnets by Shakespeare, character by character, minibatches.

In: width, depth, context, batch size, dropout and a seed for start and data order. Out: a ``Training`` on the first
nine tenths of the text beside this file, with the rest as ``eval_batches``.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch.nn import functional
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from stabletune.trial.training import Training

TEXT = Path(__file__).with_name("char_lm.txt")


class Block(torch.nn.Module):
    """Causal attention and a GELU layer, each behind a LayerNorm and around a residual connection."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention = torch.nn.LayerNorm(width)
        self.qkv = torch.nn.Linear(width, 3 * width)
        self.attended = torch.nn.Linear(width, width)
        self.feed_forward = torch.nn.Sequential(
            torch.nn.LayerNorm(width),
            torch.nn.Linear(width, 4 * width),
            torch.nn.GELU(),
            torch.nn.Linear(4 * width, width),
            torch.nn.Dropout(dropout),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, length, width) to the same shape."""
        q, k, v = self.qkv(self.before_attention(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.attended(mixed.transpose(1, 2).flatten(-2))
        result: torch.Tensor = x + self.feed_forward(x)
        return result


class CharacterModel(torch.nn.Module):
    """A transformer whose readout is tied to its embedding."""

    def __init__(self, n_characters: int, context: int, width: int, depth: int, dropout: float) -> None:
        super().__init__()
        self.characters = torch.nn.Embedding(n_characters, width)
        self.positions = torch.nn.Embedding(context, width)
        self.blocks = torch.nn.Sequential(*(Block(width, 4, dropout) for _ in range(depth)))
        self.norm = torch.nn.LayerNorm(width)
        self.readout = torch.nn.Linear(width, n_characters, bias=False)
        self.readout.weight = self.characters.weight
        for embedding in (self.characters, self.positions):
            torch.nn.init.normal_(embedding.weight, std=width**-0.5)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        """Map characters of shape (batch, length) to logits of shape (batch, length, n_characters)."""
        x = self.characters(text) + self.positions.weight[: text.shape[1]]
        logits: torch.Tensor = self.readout(self.norm(self.blocks(x)))
        return logits


def loss_fn(model: torch.nn.Module, batch: tuple[torch.Tensor]) -> torch.Tensor:
    """Return the mean cross-entropy of the next character, in nats."""
    (text,) = batch
    return functional.cross_entropy(model(text[:, :-1]).flatten(0, 1), text[:, 1:].flatten())


def build(
    seed: int,
    device: torch.device,
    *,
    width: int = 64,
    depth: int = 2,
    batch_size: int = 32,
    dropout: float = 0.0,
) -> Training:
    """Build the language model with a context of 32 characters and 4 heads.

    Args:
        seed: draws the start and the windows.
        device: where the text lives.
        width: of the residual stream, a multiple of 4.
        depth: the number of blocks.
        batch_size: windows per step.
        dropout: probability at the end of each feed-forward layer.
    """
    torch.manual_seed(seed)
    context = 32
    alphabet, text = _encoded(TEXT.read_text(encoding="utf-8"))
    text = text.to(device)
    split = len(text) * 9 // 10
    windows = TensorDataset(text[:split].unfold(0, context + 1, 1))
    generator = torch.Generator().manual_seed(seed)
    sampler = BatchSampler(RandomSampler(windows, generator=generator), batch_size, drop_last=True)
    return Training(
        model=CharacterModel(len(alphabet), context, width, depth, dropout),
        loss_fn=loss_fn,
        batches=DataLoader(windows, sampler=sampler, batch_size=None, generator=generator),
        eval_batches=[(text[split:].unfold(0, context + 1, context),)],
    )


def _encoded(text: str) -> tuple[str, torch.Tensor]:
    alphabet = "".join(sorted(set(text)))
    numbers = {character: number for number, character in enumerate(alphabet)}
    return alphabet, torch.tensor([numbers[character] for character in text])
