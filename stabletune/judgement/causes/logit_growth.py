"""Logit growth: the inputs of a softmax grew out of proportion before the loss did."""

from __future__ import annotations

import itertools

from stabletune.judgement.finding import Finding
from stabletune.judgement.onset import Onset

NAME = "logit growth"
RANK = 3
LEAST_GROWTH = 2.0
LEAST_LOGIT = 10.0
RECENT = 60
MARGIN = 2


def find(onset: Onset) -> Finding | None:
    """The largest logit of some softmax, last seen before the onset, is twice all that was seen 60 steps earlier.

    Its absolute size says little: networks that have memorized their data rest at several hundred.
    """
    looks = [(m.step, m.largest_logits) for m in onset.history.measurements if m.largest_logits]
    before = [(step, values) for step, values in looks if step <= onset.step - MARGIN]
    if not before:
        return None
    last_step, last = before[-1]
    earlier = [values for step, values in before if step <= onset.step - RECENT and len(values) == len(last)]
    if not earlier or last_step <= onset.step - RECENT:
        return None
    growths = [now / max(max(then), 1e-9) for now, then in zip(last, zip(*earlier, strict=True), strict=True)]
    growth, site = max(zip(growths, itertools.count(), strict=False))
    if growth < LEAST_GROWTH or last[site] < LEAST_LOGIT:
        return None
    where = "output" if site == len(last) - 1 else f"attention or inner (softmax {site + 1} of {len(last)})"
    highest = max(values[site] for values in earlier)
    return Finding(
        f"the largest {where} logit was {last[site]:.3g} at step {last_step}, {growth:.2g} times its largest value "
        f"until {RECENT} steps before the spike ({highest:.3g}).",
        "Add a z-loss of 1e-4 on the output logits, or cap them."
        if site == len(last) - 1
        else "Normalize queries and keys before their product, or cap the attention logits.",
    )
