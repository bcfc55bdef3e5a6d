"""What all runs so far say of settings over the full horizon: chance to stay clean, and value of the objective."""

from __future__ import annotations

import functools
import heapq
import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from stabletune.config import Config
from stabletune.study.prediction.boundary import Boundary
from stabletune.study.prediction.observation import LOWEST_SHARE, Observation
from stabletune.study.prediction.place import coordinate_of, place_of
from stabletune.study.prediction.speed import Speed

FORECAST_WEIGHT = 0.35
REMEMBERED = 100
AT_ONCE = 256
SURE = 1e-3
TIMES = 32
WIDEST, NARROWEST = math.log(1e3), 0.05


class Outlook:
    """The boundary and the speed model of one moment, fitted when first asked.

    ``values`` are on a scale in which differences are ratios of the objective: its log above the floor, or the
    objective itself where that is a mean of logs or an eval value.

    Args:
        config: of the study.
        trials: observations of search trials; of more than a hundred each model sees a hundred, so that a long study
            costs no more for each trial than a short one.
        proofs: every other run: of the proof, of further seeds, of earlier searches.
    """

    def __init__(self, config: Config, trials: Sequence[Observation], proofs: Sequence[Observation] = ()) -> None:
        self._config = config
        self.trials = remembered(trials)
        self.sample = sampled(trials)
        self._proofs = list(proofs)
        self._runs = [*self.trials, *proofs]

    def survival(self, runs: Sequence[Observation]) -> NDArray[np.float64]:
        r"""Probability that a run of each one's settings over the full horizon is clean.

        The boundary model's, pooled with the trial's own forecast where it has one: the weighted mean of their logits,
        .65 and .35. Both err, the model by what it has not seen and the forecast by workload, and their mean errs less
        than either (docs/search.md).
        """
        return _in_parts(self._survival, runs)

    def values(self, runs: Sequence[Observation]) -> NDArray[np.float64]:
        """The predicted value of the objective at the full horizon, for each one's settings; infinite if unknown.

        For an eval objective the value that its own run ended with, however long that was.
        """
        if self._config.objective.source == "eval":
            return np.array([math.inf if run.objective is None else run.objective for run in runs])
        return _in_parts(self._predicted, runs)

    def value_of(self, objective: float, run: Observation) -> float:
        """The value of an objective that a run of the full horizon has reached."""
        metric, source = self._config.objective.metric, self._config.objective.source
        if source == "eval" or metric == "loss_auc":
            return objective
        if metric == "steps_to_target":
            return math.log(objective)
        return math.log(max(objective - run.loss_floor, LOWEST_SHARE * math.exp(run.log_initial)))

    def has_hardly_fallen(self, objective: float, run: Observation) -> bool:
        """Whether a final training loss is still above half of what no training has; False for other objectives."""
        is_loss = self._config.objective.metric == "final_loss" and self._config.objective.source == "train"
        return is_loss and self.value_of(objective, run) > self.untrained - math.log(2.0)

    def objective_of(self, value: float, run: Observation) -> float:
        """The inverse of ``value_of``."""
        metric, source = self._config.objective.metric, self._config.objective.source
        if source == "eval" or metric == "loss_auc" or not math.isfinite(value):
            return value
        return math.exp(min(value, 700.0)) + (run.loss_floor if metric == "final_loss" else 0.0)

    def regrets(self, values: NDArray[np.float64], *, noise: float = 0.0) -> NDArray[np.float64]:
        """How far each value is from the best of them, in shares of the way from no training to the best.

        A difference up to ``noise`` is none. The way counts as three decades at most, so that ten times the loss is a
        third of it and more however deep the best one gets, and as five percent at least.
        """
        finite = values[np.isfinite(values)]
        if not finite.size:
            return np.zeros(values.size)
        best = float(finite.min())
        is_eval = self._config.objective.source == "eval"
        narrowest = max(NARROWEST * (abs(best) if is_eval else 1.0), 1e-300)
        width = max(self.untrained - best, narrowest)
        return np.asarray(np.maximum(values - best - noise, 0.0) / (width if is_eval else min(width, WIDEST)))

    def shift_of_short_trials(self, values: NDArray[np.float64], reached: Sequence[Sequence[float]]) -> float:
        """What the full horizon adds to the eval value of a short trial: the median over those that have both.

        None of it for an objective that is predicted at the full horizon anyway.
        """
        if self._config.objective.source != "eval":
            return 0.0
        both = [float(np.median(own)) - value for value, own in zip(values, reached, strict=True) if own]
        known = [difference for difference in both if math.isfinite(difference)]
        return float(np.median(known)) if known else 0.0

    @functools.cached_property
    def untrained(self) -> float:
        """The value of not having trained; for an eval objective the median of what was seen."""
        objective = self._config.objective
        if objective.source == "eval":
            objectives = [run.objective for run in self._runs if run.objective is not None]
            return float(np.median(objectives)) if objectives else 0.0
        if objective.metric == "steps_to_target":
            return math.log(2.0 * self._config.budget.full_steps)
        return float(np.median([run.log_initial for run in self._runs])) if self._runs else 0.0

    @functools.cached_property
    def boundary(self) -> Boundary:
        """Fitted to a sample of the trials that their outcome had no say in, and to every other run."""
        space = self._config.search_space
        return Boundary(
            [*self.sample, *self._proofs],
            n_coordinates=len(place_of({}, space)),
            horizon=self._config.budget.full_steps,
            lr_coordinate=coordinate_of("lr", space),
        )

    @functools.cached_property
    def speed(self) -> Speed | None:
        """Fitted to every run with a curve on the study's schedule; None if there is none.

        After a resume with another horizon a decay or a warm-up is not what it was; a flat rate is.
        """
        full_steps, schedule = self._config.budget.full_steps, self._config.schedule.name
        runs = [
            run
            for run in self._runs
            if run.curve and (run.full_steps == full_steps or (schedule == "constant" and not run.warmup_steps))
        ]
        return Speed(runs, schedule=schedule, full_steps=full_steps) if runs else None

    def _survival(self, runs: Sequence[Observation]) -> NDArray[np.float64]:
        return pooled(self.boundary.survival([run.place for run in runs]), [run.risk for run in runs])

    def _predicted(self, runs: Sequence[Observation]) -> NDArray[np.float64]:
        if self.speed is None:
            return np.full(len(runs), math.inf)
        objective, full_steps = self._config.objective, self._config.budget.full_steps
        if objective.metric == "final_loss":
            return self.speed.log_losses(runs, full_steps)[:, 0]
        times = np.linspace(full_steps / TIMES, full_steps, TIMES)
        if objective.metric == "loss_auc":
            return np.asarray(self.speed.log_losses(runs, times - 0.5 * full_steps / TIMES).mean(axis=1))
        curves = self.speed.log_losses(runs, times)
        return np.array([self._log_steps(run, times, curve) for run, curve in zip(runs, curves, strict=True)])

    def _log_steps(self, run: Observation, times: NDArray[np.float64], curve: NDArray[np.float64]) -> float:
        """Log of the steps to the target; where the curve misses it, the more the farther it stays above."""
        target, full_steps = self._config.objective.target, self._config.budget.full_steps
        assert target is not None
        goal = math.log(max(target - run.loss_floor, LOWEST_SHARE * math.exp(run.log_initial)))
        reached = np.flatnonzero(curve <= goal)
        return math.log(times[reached[0]]) if reached.size else math.log(2.0 * full_steps) + float(curve[-1]) - goal


def _in_parts(
    predict: Callable[[Sequence[Observation]], NDArray[np.float64]], runs: Sequence[Observation]
) -> NDArray[np.float64]:
    """Predictions for runs, at most 256 at once: what a model computes of ten thousand takes hundreds of megabytes."""
    parts = [predict(runs[start : start + AT_ONCE]) for start in range(0, len(runs), AT_ONCE)]
    return np.concatenate(parts) if parts else np.zeros(0)


def pooled(survival: NDArray[np.float64], risks: Sequence[float | None]) -> NDArray[np.float64]:
    """The boundary model's survival and the forecasts' risks as one probability each."""
    forecast = np.array([0.5 if risk is None else 1.0 - risk for risk in risks])
    weight = np.array([0.0 if risk is None else FORECAST_WEIGHT for risk in risks])
    logits = (1.0 - weight) * _logit(survival) + weight * _logit(forecast)
    return np.asarray(1.0 / (1.0 + np.exp(-logits)))


def remembered(trials: Sequence[Observation]) -> list[Observation]:
    """All of a hundred trials; of more, the newest fifty and of the others the fifty with the lowest last loss."""
    if len(trials) <= REMEMBERED:
        return list(trials)
    old, new = trials[: -REMEMBERED // 2], trials[-REMEMBERED // 2 :]
    best = heapq.nsmallest(
        REMEMBERED // 2, old, key=lambda run: (run.has_spiked, run.curve[-1][1] if run.curve else math.inf)
    )
    return [*best, *new]


def sampled(trials: Sequence[Observation]) -> list[Observation]:
    """All of a hundred trials; of more, the newest fifty and every so manyth of the others, however they ended."""
    if len(trials) <= REMEMBERED:
        return list(trials)
    half = REMEMBERED // 2
    chosen = np.linspace(0, len(trials) - half - 1, half).round().astype(int)
    return [*(trials[n] for n in chosen), *trials[-half:]]


def _logit(p: NDArray[np.float64]) -> NDArray[np.float64]:
    within = np.clip(p, SURE, 1.0 - SURE)
    return np.asarray(np.log(within / (1.0 - within)))
