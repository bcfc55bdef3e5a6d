"""How low the loss gets: one regression over the curves of all runs, in how far they have come."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel

from stabletune.study.prediction.observation import Observation
from stabletune.study.prediction.path import path_length

NEAR, FAR = 1.0, 4.0
NEAR_PLACE, FAR_PLACE = 0.5, 2.0
FAR_VARIANCE, NOISE_VARIANCE = 4.0, 0.05


class Speed:
    r"""Log loss as a function of :math:`u = \log \sum \eta_t`, the path length, and the place in the search space.

    Adam moves by about the learning rate a step, so that a run at a tenth of the rate passes through about the same
    losses ten times later: a short trial at a high rate foretells the full horizon of a low one, which no
    extrapolation of the low one's own flat start can. What the rate changes besides (the floor of its noise, the
    direction it takes) is left to the place.

    A Gaussian process with two squared-exponential kernels of fixed lengths, one near (u 1, place 0.5) and one far
    (u 4, place 2), on standardized log losses with noise variance 0.05. Lengths are fixed because a hundred
    correlated points of a few curves fit them badly.

    Args:
        runs: observations with curves.
        schedule, full_steps: of the study.

    Cost: cubic in the points, about six a run; 20 ms for a hundred runs.

    Source: stabletune's own; docs/search.md compares it with extrapolated curves.
    """

    def __init__(self, runs: Sequence[Observation], *, schedule: str, full_steps: int) -> None:
        self._schedule, self._full_steps = schedule, full_steps
        points = np.concatenate([self._inputs(run, [step for step, _ in run.curve]) for run in runs if run.curve])
        values = np.concatenate([[value for _, value in run.curve] for run in runs if run.curve])
        n_coordinates = points.shape[1] - 1
        near, far = [NEAR] + [NEAR_PLACE] * n_coordinates, [FAR] + [FAR_PLACE] * n_coordinates
        kernel = RBF(near, "fixed") + ConstantKernel(FAR_VARIANCE, "fixed") * RBF(far, "fixed")
        self._process = GaussianProcessRegressor(kernel, alpha=NOISE_VARIANCE, optimizer=None, normalize_y=True)
        self._process.fit(points, values)

    def log_losses(self, runs: Sequence[Observation], steps: ArrayLike) -> NDArray[np.float64]:
        """Predicted log loss above the floor of each run's settings after each of ``steps``, shape (runs, steps)."""
        inputs = np.concatenate([self._inputs(run, steps) for run in runs])
        return np.asarray(self._process.predict(inputs)).reshape(len(runs), -1)

    def _inputs(self, run: Observation, steps: ArrayLike) -> NDArray[np.float64]:
        lengths = path_length(
            run.lr, steps, schedule=self._schedule, warmup_steps=run.warmup_steps, full_steps=self._full_steps
        )
        u = np.log(np.maximum(np.atleast_1d(lengths), 1e-300))
        return np.column_stack([u, np.broadcast_to(np.asarray(run.place, dtype=np.float64), (u.size, len(run.place)))])
