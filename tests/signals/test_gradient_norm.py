from __future__ import annotations

import torch

from stabletune.signals.gradient_norm import gradient_norm


def test_it_is_the_norm_over_all_tensors() -> None:
    assert gradient_norm([torch.tensor([3.0]), torch.tensor([[0.0, 4.0]])]) == 5.0
