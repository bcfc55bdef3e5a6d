"""What monitor and alerts add on a GPU: copies of one training of a GPT in bfloat16, run in turn block by block.

Two figures: the time of all blocks over the plain copy's, which has the two readings in it that every run is promised;
and the median over blocks, which is what the steps between readings cost.
"""

from __future__ import annotations

import statistics
import sys
import time

import torch
from torch import Tensor, nn

from stabletune import StabilityAlerts, StabilityMonitor

WIDTH, DEPTH, HEADS, WORDS, LENGTH, N_ROWS = 512, 8, 8, 8192, 256, 32
WARM_UP, BLOCK, N_BLOCKS = 20, 25, 24


class Gpt(nn.Module):
    """34 million parameters in a hundred tensors."""

    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.places = nn.Parameter(torch.randn(LENGTH, WIDTH) * 0.02)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(WIDTH, HEADS, 4 * WIDTH, 0.0, "gelu", batch_first=True, norm_first=True)
            for _ in range(DEPTH)
        )
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WORDS, bias=False)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(LENGTH))

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of the next token, shape (rows, length, words)."""
        hidden = self.words(tokens) + self.places
        for layer in self.layers:
            hidden = layer(hidden, src_mask=self.mask)
        logits: Tensor = self.head(self.norm(hidden))
        return logits


class Copy:
    """One copy of the training; all see the same batches."""

    def __init__(self, *, is_watched: bool, has_alerts: bool = False) -> None:
        torch.manual_seed(0)
        self.model = Gpt().cuda()
        self.batches = torch.randint(0, WORDS, (16, N_ROWS, LENGTH + 1), device="cuda")
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=3e-4, betas=(0.9, 0.95), fused=True)
        self.monitor = StabilityMonitor(self.model, self.optimizer) if is_watched else None
        self.alerts = StabilityAlerts(self.monitor) if self.monitor is not None and has_alerts else None
        self.n_steps, self.seconds = 0, list[float]()

    def loss(self, batch: Tensor) -> Tensor:
        """Mean cross entropy of the next token."""
        with torch.autocast("cuda", torch.bfloat16):
            logits = self.model(batch[:, :-1])
            return nn.functional.cross_entropy(logits.flatten(0, 1).float(), batch[:, 1:].flatten())

    def block(self, n_steps: int) -> None:
        """Train some steps on the clock."""
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(n_steps):
            self._step()
        torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - began)

    def _step(self) -> None:
        batch = self.batches[self.n_steps % len(self.batches)]
        self.n_steps += 1
        self.optimizer.zero_grad()
        loss = self.loss(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        if self.monitor is None:
            return
        reading = self.monitor.step(loss, lambda: self.loss(batch))
        if self.alerts is not None:
            self.alerts.step(loss, reading, lambda: self.loss(batch))


def main() -> None:
    """Print the table, or say that there is no GPU."""
    if not torch.cuda.is_available():
        print("no CUDA device: nothing measured")
        return
    torch.backends.cuda.matmul.allow_tf32 = True
    copies = {
        "plain": Copy(is_watched=False),
        "monitor": Copy(is_watched=True),
        "monitor and alerts": Copy(is_watched=True, has_alerts=True),
    }
    for copy in copies.values():
        copy.block(WARM_UP)
        copy.seconds.clear()
    for _ in range(N_BLOCKS):
        for copy in copies.values():
            copy.block(BLOCK)
    plain = copies["plain"].seconds
    print(f"{torch.cuda.get_device_name()}: {1e3 * sum(plain) / (BLOCK * N_BLOCKS):.1f} ms a step")
    for name, copy in copies.items():
        between = statistics.median(ours / theirs for ours, theirs in zip(copy.seconds, plain, strict=True))
        booked = 0.0 if copy.monitor is None else copy.monitor.overhead
        print(f"{name:20} all {sum(copy.seconds) / sum(plain):.3f}  between {between:.3f}  booked {booked:.3f}")


if __name__ == "__main__":
    sys.exit(main())
