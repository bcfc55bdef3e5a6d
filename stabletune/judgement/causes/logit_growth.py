"""Logit growth: the inputs of a softmax grew out of proportion before the loss did."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from stabletune.judgement.finding import Finding
from stabletune.judgement.onset import Onset

NAME = "logit growth"
RANK = 3
LEAST_GROWTH, LEAST_GROWTH_AT_ONSET = 2.0, 3.0
LEAST_LOGIT = 10.0
RECENT = 60
MARGIN = 2


def find(onset: Onset) -> Finding | None:
    """The largest logit of some softmax, last seen before the onset, is twice all that was seen 60 steps earlier.

    At the onset itself, three times, as any spike moves the logits. Not where the loss rose in one step, unless the
    loss function itself changed: young networks double their logits in 60 steps by learning. Their absolute size says
    little too: networks that have memorized their data rest at several hundred.
    """
    if onset.is_sudden and not onset.has_changed_for_good:
        return None
    looks = [(m.step, m.largest_logits) for m in onset.history.measurements if m.largest_logits]
    earlier = [values for step, values in looks if step <= onset.step - RECENT]
    for step, last, least in _last_looks(onset, looks):
        alike = [values for values in earlier if len(values) == len(last)]
        finding = _grown(onset, step, last, alike, least) if alike else None
        if finding is not None:
            return finding
    return None


def _last_looks(
    onset: Onset, looks: Sequence[tuple[int, tuple[float, ...]]]
) -> Iterator[tuple[int, tuple[float, ...], float]]:
    """Step, logits and what growth they must show: the last before the onset, and the one at the onset."""
    recent = [look for look in looks if onset.step - RECENT < look[0] <= onset.step - MARGIN]
    if recent:
        yield *recent[-1], LEAST_GROWTH
    found, _ = onset.inspections()
    if found is not None and found.largest_logits:
        yield found.step, found.largest_logits, LEAST_GROWTH_AT_ONSET


def _grown(
    onset: Onset, last_step: int, last: tuple[float, ...], earlier: Sequence[tuple[float, ...]], least: float
) -> Finding | None:
    growths = [now / max(max(then), 1e-9) for now, then in zip(last, zip(*earlier, strict=True), strict=True)]
    growth, site = max(zip(growths, itertools.count(), strict=False))
    if growth < least or last[site] < LEAST_LOGIT:
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
