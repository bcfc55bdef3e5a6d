"""The definition of a spike, computed for a whole run at once with nothing kept between steps."""

import itertools
import math
import statistics

import numpy as np

from stabletune.records import Episode


def naive_scores(losses, loss_floor=0.0):
    """The score of each loss; a loss that is not finite has an infinite one and is in no window."""
    judged = (score for _, _, _, score in _judged(losses, loss_floor))
    return [next(judged) if math.isfinite(loss) else math.inf for loss in losses]


def naive_episodes(losses, loss_floor=0.0):
    """Spiky steps at most fifty apart are one episode; lost are its steps until the loss is back at the median."""
    episodes, reference = [], None
    for step, level, baseline, score in _judged(losses, loss_floor):
        if score > 1.0:
            if not episodes or step - episodes[-1]["end"] > 50:
                episodes.append({"start": step, "lost": []})
                reference = baseline
            reference = baseline if reference is None else reference
            episodes[-1]["end"] = step
        if reference is not None and level <= reference:
            reference = None
        elif reference is not None:
            episodes[-1]["lost"].append(level / reference)
    return [_episode(**found) for found in episodes]


def _episode(start, end, lost):
    severity = sum(math.log(ratio) for ratio in lost)
    return Episode(start=start, end=end, worst_ratio=max(lost), severity=severity, steps_lost=len(lost))


def _judged(losses, loss_floor):
    """Step, level above the floor, baseline and score of each finite loss; the first ten have no baseline."""
    known = [(step, float(loss) - loss_floor) for step, loss in enumerate(losses, start=1) if math.isfinite(loss)]
    levels = [level for _, level in known]
    # The floor settles with the tenth loss; before, each step sees the median of what came so far.
    floors = [1e-4 * statistics.median(levels[:n]) for n in range(1, min(10, len(levels)) + 1)]
    logs = [math.log(max(level, floors[min(n, 9)])) for n, level in enumerate(levels)]
    changes = [abs(after - before) for before, after in itertools.pairwise(logs)]
    sigmas = [math.nan, *(1.4826 * change for change in _medians_before(changes))]
    for n, ((step, level), median) in enumerate(zip(known, _medians_before(levels), strict=True)):
        if n < 10:
            yield step, level, math.nan, 0.0
        else:
            baseline = max(median, floors[-1])
            yield step, level, baseline, _score(math.log(level / baseline), sigmas[n])


def _medians_before(values):
    """For each value the median of the at most hundred before it; nan for the first."""
    if not values:
        return []
    windows = np.lib.stride_tricks.sliding_window_view([math.nan] * 100 + values[:-1], 100)
    in_order, n_known = np.sort(windows, axis=1), np.minimum(np.arange(len(values)), 100)  # nan comes last
    rows = np.arange(len(values))
    return (0.5 * (in_order[rows, (n_known - 1) // 2] + in_order[rows, n_known // 2])).tolist()


def _score(deviation, sigma):
    by_noise = [deviation / (k * sigma) if sigma > 0.0 else math.copysign(math.inf, deviation) for k in (8.0, 3.0)]
    return max(min(deviation / math.log(1.25), by_noise[0]), min(deviation / math.log(3.0), by_noise[1]))
