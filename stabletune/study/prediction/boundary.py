"""The boundary of stability: how likely settings are to stay free of spikes until a step, fitted to all runs so far."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.linear_model import LogisticRegression

from stabletune.study.prediction.observation import Observation

BINS_AN_OCTAVE = 1.5
BINS = 12
SCALE, CURVATURE = 3.0, 0.4
PRIOR_WEIGHT = 0.5
PRIOR_ONSET_SHARE = 0.25


class Boundary:
    r"""A discrete-time survival model: :math:`P(\text{no spike until } T) = \prod_{k: t_k \le T} (1 - h_k(x))`.

    The horizon is cut into 12 bins, all but the first of equal length in log step. The hazard of bin k, the probability
    of a first spike in it, is a logistic regression with an L2 penalty on the place x in the search space (linear and
    quadratic) and the log of the step. A run teaches every bin that it passed without a spike, and the one that it
    spiked in; a trial that ended clean is censored there, so that short trials and full runs are learned from alike. In
    log step the onset falls steadily with the learning rate, which carries spikes of short trials over to the full
    horizon.

    Before anything is known the highest learning rate spikes at a quarter of the horizon and the lowest never does;
    each weighs half a run.

    Args:
        runs: what has been seen; those of any length.
        n_coordinates: of a place.
        horizon: the full horizon in steps.
        lr_coordinate: which coordinate is the learning rate; None if it is not searched.

    Cost: milliseconds for a hundred runs.

    Source: discrete-time hazards by logistic regression, Cox 1972 and Singer & Willett 1993; the features are
    stabletune's own. docs/search.md has its calibration.
    """

    def __init__(
        self, runs: Sequence[Observation], *, n_coordinates: int, horizon: int, lr_coordinate: int | None
    ) -> None:
        self._ends = horizon * 2.0 ** (-np.arange(BINS)[::-1] / BINS_AN_OCTAVE)
        starts = np.concatenate([[1.0], self._ends[:-1]])
        self._times = np.log10(np.sqrt(starts * self._ends) / horizon)
        self._log_starts, self._log_ends = np.log(starts), np.log(self._ends)
        rows = [(np.asarray(run.place, dtype=np.float64), *self._seen(run.steps, run.has_spiked), 1.0) for run in runs]
        middle = np.full(n_coordinates, 0.5)
        for share, spikes in ((1.0, True), (0.0, False)):
            at = middle.copy()
            if lr_coordinate is not None:
                at[lr_coordinate] = share
            rows.append((at, *self._seen(PRIOR_ONSET_SHARE * horizon if spikes else horizon, spikes), PRIOR_WEIGHT))
        features = np.concatenate([self._features(at, bins) for at, bins, *_ in rows])
        has_spiked = np.concatenate([spiked for _, _, spiked, *_ in rows])
        weights = np.concatenate([weight * shares for _, _, _, shares, weight in rows])
        self._model = LogisticRegression(max_iter=1000).fit(features, has_spiked, sample_weight=weights)

    def survival(self, places: ArrayLike) -> NDArray[np.float64]:
        """Probability of no spike over the full horizon for each of ``places``, shape (n, coordinates)."""
        where = np.atleast_2d(np.asarray(places, dtype=np.float64))
        every_bin = np.arange(BINS)
        features = np.concatenate([self._features(at, every_bin) for at in where])
        hazards = self._model.predict_proba(features)[:, 1].reshape(len(where), BINS)
        return np.asarray(np.prod(1.0 - hazards, axis=1))

    def _seen(self, steps: float, has_spiked: bool) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.float64]]:
        """Bins that a run entered, whether it spiked in each, and what share of each it saw."""
        at = np.log(max(steps, 1.0))
        last = min(int(np.searchsorted(self._log_ends, at - 1e-9)), BINS - 1)
        shares = np.ones(last + 1)
        spiked = np.zeros(last + 1, dtype=bool)
        spiked[last] = has_spiked
        if not has_spiked:
            width = self._log_ends[last] - self._log_starts[last]
            shares[last] = np.clip((at - self._log_starts[last]) / width, 1e-6, 1.0)
        return np.arange(last + 1), spiked, shares

    def _features(self, place: ArrayLike, bins: NDArray[np.int64]) -> NDArray[np.float64]:
        z = SCALE * (np.asarray(place, dtype=np.float64) - 0.5)
        row = np.concatenate([z, CURVATURE * np.outer(z, z)[np.triu_indices(z.size)]])
        return np.column_stack([np.broadcast_to(row, (bins.size, row.size)), 2.0 * self._times[bins]])
