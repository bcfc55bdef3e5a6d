from __future__ import annotations

import pytest
import torch

from stabletune.signals.update_rms import update_rms
from tests.signals.problems import tensor_with


def test_it_is_the_largest_over_tensors_of_the_gradient_in_units_of_v_hat() -> None:
    correction = 1 - 0.99**10
    calm = tensor_with(v=correction * torch.full((3,), 4.0))
    burst = tensor_with(v=correction * torch.ones(2))
    assert update_rms([calm, burst], [torch.full((3,), 2.0), torch.tensor([3.0, 4.0])]) == pytest.approx(12.5**0.5)


def test_eps_is_the_floor_of_the_root() -> None:
    assert update_rms([tensor_with(v=torch.zeros(3), eps=0.5)], [torch.ones(3)]) == pytest.approx(2.0)


def test_without_tensors_there_is_none() -> None:
    assert update_rms([], []) is None
