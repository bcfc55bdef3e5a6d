"""How fast a trial must be to go on: limits on its loss at a few steps, fair to those that are careful."""

from __future__ import annotations

import math

import numpy as np

from stabletune.config import Config
from stabletune.space import Choices
from stabletune.study.feasibility import LIKELY
from stabletune.study.prediction.observation import marks
from stabletune.study.prediction.outlook import Outlook

FEWEST_PEERS = 4
KEPT_SHARE = 0.2


def pace_limits(config: Config, outlook: Outlook) -> tuple[tuple[int, float], ...]:
    """Pairs of (step, loss): a trial whose trailing loss is above it at that step ends there.

    Successive halving's rule (ASHA, arXiv:1810.05934): the best fifth of the peers that came so far goes on. Peers are
    trials without a spike that are more likely than not to stay so over the full horizon: the pace of a reckless trial
    is no reason to stop a careful one. Steps are the octaves of the full horizon below the length of a trial, after
    the longest warm-up of the search space; there are no limits for an eval objective, nor before four peers.
    """
    if config.objective.source == "eval":
        return ()
    first = _longest_warmup(config)
    steps = [step for step in marks(config.budget.full_steps) if first < step < config.budget.trial_steps]
    clean = [run for run in outlook.sample if not run.has_spiked]
    peers = [run for run, p in zip(clean, outlook.survival(clean), strict=True) if p >= LIKELY]
    limits = []
    for step in steps:
        losses = [loss for run in peers for at, loss in run.curve if at == step]
        if len(losses) >= FEWEST_PEERS:
            limits.append((step, math.exp(float(np.quantile(losses, KEPT_SHARE))) + peers[0].loss_floor))
    return tuple(limits)


def _longest_warmup(config: Config) -> int:
    searched = config.search_space.ranges.get("warmup_ratio")
    settings = config.settings()
    if searched is None:
        ratios = [settings["warmup_ratio"]]
    else:
        ratios = list(searched.values) if isinstance(searched, Choices) else [searched.high]
    return round(float(max(ratios)) * config.budget.full_steps)
