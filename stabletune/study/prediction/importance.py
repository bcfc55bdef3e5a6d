"""Which hyperparameter mattered: how much of the differences between trials each one explains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.importance import FanovaImportanceEvaluator, get_param_importances

from stabletune.config import Config
from stabletune.study.distributions import distributions, is_inside, nearest_params
from stabletune.study.prediction.observation import Observation
from stabletune.study.prediction.outlook import Outlook

FEWEST = 12


def importance(
    config: Config, outlook: Outlook, trials: Sequence[tuple[Mapping[str, Any], Observation]]
) -> dict[str, Any]:
    """Shares of the variance that each hyperparameter explains by itself and with others.

    By fANOVA (Hutter et al., ICML 2014, Optuna's) of two predictions: the objective at the full horizon, over trials
    without a spike, and the chance to stay clean, over all. Trials outside the search space do not count.

    Returns:
        Plain data: ``objective`` and ``stability``, each a share by name or None with fewer than twelve trials or where
        they do not differ; ``n_trials`` that count for each; ``needed``.
    """
    space = config.search_space
    known = [(settings, run) for settings, run in trials if is_inside(space, settings)]
    clean = [(settings, run) for settings, run in known if not run.has_spiked]
    values = outlook.values([run for _, run in clean])
    finite = np.isfinite(values)
    fast = [trial for trial, is_known in zip(clean, finite, strict=True) if is_known]
    survival = outlook.survival([run for _, run in known])
    return {
        "objective": _shares(config, [settings for settings, _ in fast], values[finite]),
        "stability": _shares(config, [settings for settings, _ in known], survival),
        "n_trials": {"objective": len(fast), "stability": len(known)},
        "needed": FEWEST,
    }


def _shares(
    config: Config, settings: Sequence[Mapping[str, Any]], values: NDArray[np.float64]
) -> dict[str, float] | None:
    if len(settings) < FEWEST or np.ptp(values) == 0.0:
        return None
    space = config.search_space
    stored = distributions(space)
    study = optuna.create_study()
    study.add_trials(
        [
            optuna.trial.create_trial(
                params=nearest_params(space, each), distributions=dict(stored.values()), value=float(value)
            )
            for each, value in zip(settings, values, strict=True)
        ]
    )
    found = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    return {name: round(float(found.get(stored_name, 0.0)), 3) for name, (stored_name, _) in stored.items()}
