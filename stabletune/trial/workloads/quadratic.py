"""A diagonal quadratic, full batch: closed-form curvature, a fraction of a millisecond per step, for tests.

In: curvatures and a start. Out: a ``Training`` whose Hessian is diag(curvatures) at every step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch

from stabletune.errors import WorkloadError
from stabletune.trial.training import Training

Dtype = Literal["float32", "float64"]
LOSS_FLOOR = -1e-12
"""Just below the true bound 0, which Adam reaches exactly: from 0 itself the logarithm would not exist."""


class Point(torch.nn.Module):
    """The position on the quadratic, one coordinate per curvature."""

    def __init__(self, start: torch.Tensor) -> None:
        super().__init__()
        self.theta = torch.nn.Parameter(start)

    def forward(self, curvatures: torch.Tensor) -> torch.Tensor:
        """Return the loss 1/2 sum_i curvatures_i theta_i^2."""
        return 0.5 * (curvatures * self.theta.square()).sum()


def build(
    seed: int,
    device: torch.device,
    *,
    curvatures: Sequence[float] = (1.0,),
    start: float = 1.0,
    jitter: float = 0.0,
    dtype: Dtype = "float32",
) -> Training:
    """Build L(theta) = 1/2 sum_i h_i theta_i^2 with theta_0 = start + jitter N(0, 1).

    With the default start and no jitter all seeds are the same run: Adam at lr 0.1, betas (0.9, 0.99) first has
    ``sharpness_ratio`` above 1 at step 888, at beta2 0.95 at step 216, at eps 1e-2 never.

    Args:
        seed: seeds the jitter alone.
        device: where the curvatures live.
        curvatures: h, the eigenvalues of the Hessian, of any sign.
        start: every coordinate's start.
        jitter: standard deviation of what is added to the start.
        dtype: of the parameters and of the curvatures.

    Raises:
        WorkloadError: another dtype.
    """
    if dtype not in get_args(Dtype):
        raise WorkloadError(f"workload_args.dtype: must be float32 or float64, but got {dtype!r}. Name one of them.")
    kind = torch.float64 if dtype == "float64" else torch.float32
    h = torch.tensor(list(curvatures), dtype=kind)
    noise = torch.randn(h.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    theta = (start + jitter * noise).to(kind)
    return Training(
        model=Point(theta),
        loss_fn=lambda model, batch: model(batch),
        batches=[h.to(device)],
        loss_floor=LOSS_FLOOR,
    )
