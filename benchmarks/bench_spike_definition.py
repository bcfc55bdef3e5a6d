"""The definition of a spike against others, on real losses with spikes put into them: see docs/spikes.md.

A minute on one core. The losses are those of the corpus's gentlest third of learning rates, whatever their label, so
that few spikes of their own are in them. One table in Markdown.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.corpus.traces import TRACES, Trace, read_traces
from stabletune.judgement.spikes import REFRACTORY, find_spikes

Array = NDArray[np.float64]
SHAPE = np.array([0.2, 0.5, 1.0, 0.7, 0.5, 0.35, 0.25, 0.17, 0.12, 0.08])
HEIGHTS = (1.3, 1.5, 2.0, 5.0)
GAPS = {"one spike": math.inf, "every 150 steps": 150, "every 70 steps": 70}
FIRST = 150
MINIBATCH = ("cnn_cross_entropy", "table_classification", "modular_arithmetic", "character_model")
MOST_RUNS = 40


def main() -> None:
    """Print, for each kind of run, what each definition finds of what was put in, and what it finds beside that."""
    traces = read_traces(TRACES)
    print("| losses | definition | false episodes in 1,000 steps |", end="")
    cells = [(height, name) for name in GAPS for height in HEIGHTS]
    print("".join(f" {height:g}x, {name} |" for height, name in cells))
    print("|---|---|---|" + "---|" * len(cells))
    for kind, runs in kinds(traces).items():
        for definition, find in DEFINITIONS.items():
            false = 1000 * sum(len(find(run)) for run in runs) / sum(run.size for run in runs)
            found = [f"{recall(find, runs, height, GAPS[name]):.2f}" for height, name in cells]
            print(f"| {kind} ({len(runs)}) | {definition} | {false:.2f} | {' | '.join(found)} |", flush=True)


def kinds(traces: Sequence[Trace]) -> dict[str, list[Array]]:
    """Losses above their floor: smooth full-batch ones, noisy minibatch ones, and the steep beginnings of both."""
    gentle = [trace for family in dict.fromkeys(t.family for t in traces) for trace in _gentlest(traces, family)]
    levels = {id(t): t.losses[np.isfinite(t.losses)] - t.loss_floor for t in gentle}
    smooth = [levels[id(t)][500:] for t in gentle if t.family not in MINIBATCH]
    noisy = [levels[id(t)][500:] for t in gentle if t.family in MINIBATCH]
    steep = [levels[id(t)][:400] for t in gentle]
    return {
        "full batch": smooth[:: max(1, len(smooth) // MOST_RUNS)],
        "minibatches": noisy[:: max(1, len(noisy) // MOST_RUNS)],
        "trending: the first 400 steps": steep[:: max(1, len(steep) // MOST_RUNS)],
    }


def recall(find: Callable[[Array], list[int]], runs: Sequence[Array], height: float, gap: float) -> float:
    """The share of the spikes put in at whose rise or peak an episode begins."""
    n_found = n_put = 0
    for run in runs:
        starts = [FIRST] if math.isinf(gap) else list(range(FIRST, run.size - SHAPE.size, int(gap)))
        changed = run.copy()
        for start in starts:
            changed[start : start + SHAPE.size] *= 1.0 + (height - 1.0) * SHAPE
        episodes = find(changed)
        n_found += sum(any(start <= episode - 1 <= start + 3 for episode in episodes) for start in starts)
        n_put += len(starts)
    return n_found / n_put


def _gentlest(traces: Sequence[Trace], family: str) -> list[Trace]:
    runs = sorted((t for t in traces if t.family == family), key=lambda t: float(t.spec.params["lr"]))
    return runs[: len(runs) // 3]


def _ours(losses: Array) -> list[int]:
    return [episode.start for episode in find_spikes(losses).episodes]


def _z_score(losses: Array, *, window: int, level: float) -> list[int]:
    """Steps more than ``level`` rolling deviations above the rolling mean."""
    return _episodes([k for k in range(10, losses.size) if _z(losses[max(0, k - window) : k], losses[k]) > level])


def _z(past: Array, now: float) -> float:
    deviation = float(past.std())
    return (now - float(past.mean())) / deviation if deviation > 0.0 else 0.0


def _three_times(losses: Array) -> list[int]:
    return _episodes(
        [k for k in range(10, losses.size) if losses[k] > 3.0 * float(np.median(losses[max(0, k - 100) : k]))]
    )


def _log_mad(losses: Array) -> list[int]:
    """Robust z of the logarithm above 8, over 100 steps."""
    logs, found = np.log(losses), []
    for k in range(10, losses.size):
        past = logs[max(0, k - 100) : k]
        median = float(np.median(past))
        spread = 1.4826 * float(np.median(np.abs(past - median)))
        if spread > 0.0 and logs[k] - median > 8.0 * spread:
            found.append(k)
    return _episodes(found)


def _episodes(steps: Sequence[int]) -> list[int]:
    """First steps, counted from 1, of what lies at most 50 steps apart."""
    return [k + 1 for i, k in enumerate(steps) if i == 0 or k - steps[i - 1] > REFRACTORY]


DEFINITIONS: dict[str, Callable[[Array], list[int]]] = {
    "stabletune": _ours,
    "OLMo: 7 deviations, 1,000 steps": lambda losses: _z_score(losses, window=1000, level=7.0),
    "3 deviations, 100 steps": lambda losses: _z_score(losses, window=100, level=3.0),
    "3 times the median": _three_times,
    "robust log-z above 8": _log_mad,
}

if __name__ == "__main__":
    main()
