"""How well the first fifth of a run tells whether it will spike later, among runs that are clean until then."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.corpus.traces import Trace
from benchmarks.prediction.replay import history_at
from stabletune.judgement.forecast import (
    expected_onset,
    predicted_height,
    rate_to_come,
    spike_potential,
    spike_risk,
)
from stabletune.judgement.history import History
from stabletune.judgement.spikes import SpikeDetector

SHARE = 5
SCHEDULES = ("wsd", "cosine")
N_RESAMPLED = 1000

Array = NDArray[np.float64]


def tables(traces: Sequence[Trace], tuning: Collection[str]) -> list[str]:
    """The area under the ROC curve of the forecast and of what is fitted on the loss, and when the spikes come."""
    runs = [trace for trace in traces if _is_clean_then(trace)]
    cuts = [history_at(trace, trace.spec.full_steps // SHARE) for trace in runs]
    labels = np.array([trace.is_spiky for trace in runs])
    is_tuning = np.array([trace.family in tuning for trace in runs])
    families = np.array([trace.family for trace in runs])
    loss = np.array([_of_loss(history) for history in cuts])
    settings = np.array([_of_settings(history) for history in cuts])
    signals = np.array([_of_signals(history) for history in cuts])
    risks = np.array([spike_risk(history) for history in cuts])
    rows = [
        "### Horizon: from the first fifth, does it spike later?",
        "",
        f"{len(runs)} runs clean then; not used for tuning: {int((~is_tuning).sum())}, "
        f"{int(labels[~is_tuning].sum())} of which spike later.",
        "",
        "| number | AUC, families not used for tuning | within a family | tuning families |",
        "|---|---|---|---|",
        _row("`spike_risk`, the search's forecast", risks, labels, is_tuning, families),
    ]
    for title, columns in (
        ("the loss", loss),
        ("the loss and the hyperparameters", np.hstack([loss, settings])),
        ("the signals", signals),
        ("the signals and the hyperparameters", np.hstack([signals, settings])),
        ("all of it", np.hstack([loss, settings, signals])),
    ):
        for kind, model in _models().items():
            model.fit(columns[is_tuning], labels[is_tuning])
            found = model.predict_proba(columns)[:, 1]
            rows.append(_row(f"fitted on {title}, {kind}", found, labels, is_tuning, families))
    return [
        "\n".join([*rows, ""]),
        _when(runs, cuts, is_tuning),
        _calibration(risks, labels, is_tuning),
        _fit(runs, cuts, is_tuning),
    ]


def _is_clean_then(trace: Trace) -> bool:
    end = trace.spec.full_steps // SHARE
    return trace.losses.size >= end and (trace.onset is None or trace.onset > end)


def _models() -> dict[str, LogisticRegression | HistGradientBoostingClassifier]:
    return {
        "logistic": make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=5000)),
        "boosted trees": HistGradientBoostingClassifier(
            max_iter=80, learning_rate=0.05, max_leaf_nodes=4, min_samples_leaf=15, l2_regularization=3, random_state=0
        ),
    }


def _of_loss(history: History) -> list[float]:
    """Level, fall, slope and one-step scale of the loss, and its spike scores: the last one and the highest of late."""
    spikes, scores = SpikeDetector(history.spikes.loss_floor), []
    for loss in history.losses:
        scores.append(max(-3.0, min(3.0, spikes.update(loss))))
    logs = np.log(np.asarray(history.losses) - spikes.loss_floor)
    half, last, first = history.step // 2, float(np.median(logs[-20:])), float(np.median(logs[:10]))
    return [
        last - first,
        last - float(np.median(logs[half - 10 : half + 10])),
        float(np.median(logs[-100:]) - np.median(logs[-200:-100])),
        math.log(float(np.median(np.abs(np.diff(logs[-100:])))) + 1e-9),
        scores[-1],
        *(max(scores[-n:]) for n in (60, 200, len(scores))),
    ]


def _of_settings(history: History) -> list[float]:
    params, spec = history.spec.params, history.spec
    beta1, beta2 = float(params["beta1"]), float(params["beta2"])
    return [
        math.log10(float(params["lr"])),
        math.log10(max(1.0 - beta2, 1e-6)),
        math.log(1.0 - beta1),
        math.log10(max(float(params["eps"]), 1e-12)),
        *(float(spec.schedule == name) for name in SCHEDULES),
    ]


def _of_signals(history: History) -> list[float]:
    recent = [m for m in history.measurements if m.step > history.step - 150]
    ratios = [m.sharpness_ratio for m in history.measurements if m.sharpness_ratio is not None]
    staleness = [m.v_hat_staleness for m in history.measurements if m.v_hat_staleness is not None]
    energies = [m.oscillation_energy / history.spikes.baseline for m in recent if m.oscillation_energy]
    potential = spike_potential(history)
    return [
        -3.0 if potential is None else potential,
        max(ratios, default=0.0),
        math.log10(max(max(staleness, default=1.0), 1e-6)),
        math.log10(max(max(energies, default=1e-9), 1e-9)),
    ]


def _row(name: str, scores: Array, labels: NDArray[np.bool_], is_tuning: NDArray[np.bool_], families: Array) -> str:
    unseen = ~is_tuning
    low, high = _interval(scores[unseen], labels[unseen])
    within = _within_family(scores[unseen], labels[unseen], families[unseen])
    return (
        f"| {name} | {roc_auc_score(labels[unseen], scores[unseen]):.3f} ({low:.2f}-{high:.2f}) | {within:.3f} | "
        f"{roc_auc_score(labels[is_tuning], scores[is_tuning]):.3f} |"
    )


def _interval(scores: Array, labels: NDArray[np.bool_]) -> tuple[float, float]:
    """95 % of resampled runs."""
    draws, found = np.random.default_rng(0), []
    for _ in range(N_RESAMPLED):
        chosen = draws.integers(0, labels.size, labels.size)
        if labels[chosen].any() and not labels[chosen].all():
            found.append(roc_auc_score(labels[chosen], scores[chosen]))
    return float(np.quantile(found, 0.025)), float(np.quantile(found, 0.975))


def _within_family(scores: Array, labels: NDArray[np.bool_], families: Array) -> float:
    """The mean over families of the area within each."""
    found = []
    for family in dict.fromkeys(families.tolist()):
        chosen = families == family
        if labels[chosen].any() and not labels[chosen].all():
            found.append(roc_auc_score(labels[chosen], scores[chosen]))
    return float(np.mean(found))


def _when(runs: Sequence[Trace], cuts: Sequence[History], is_tuning: NDArray[np.bool_]) -> str:
    """How far off the expected step of the first spike is, beside one number for all; where one is expected."""
    spiking = [
        (is_used, expected, cut.step, (trace.onset or 0) - cut.step)
        for trace, cut, is_used in zip(runs, cuts, is_tuning, strict=True)
        if trace.is_spiky and (expected := expected_onset(cut)) is not None
    ]
    usual = float(np.median([wait / step for is_used, _, step, wait in spiking if is_used]))
    unseen = [(expected - step, usual * step, wait) for is_used, expected, step, wait in spiking if not is_used]
    lines = ["### When, of the runs that spike later", "", "| expected | median factor off | within a factor of two |"]
    lines.append("|---|---|---|")
    for column, name in enumerate(("`expected_onset`", "the median of the tuning runs")):
        off = np.array([abs(math.log(row[column] / row[2])) for row in unseen])
        lines.append(f"| {name} | {math.exp(float(np.median(off))):.2f} | {np.mean(off < math.log(2)):.2f} |")
    return "\n".join([*lines, ""])


def _calibration(risks: Array, labels: NDArray[np.bool_], is_tuning: NDArray[np.bool_]) -> str:
    """What share of the runs spikes later, by what was forecast."""
    lines = ["### What a forecast is worth", "", "| risk, in quarters of the runs not used for tuning | spike later |"]
    lines.append("|---|---|")
    unseen, spiky = risks[~is_tuning], labels[~is_tuning]
    bounds = np.quantile(unseen, [0.0, 0.25, 0.5, 0.75, 1.0])
    for low, high in itertools.pairwise(bounds):
        chosen = (unseen >= low) & ((unseen < high) | (high == bounds[-1]))
        lines.append(f"| {low:.2f}-{high:.2f} | {spiky[chosen].mean():.2f} ({spiky[chosen].sum()}/{chosen.sum()}) |")
    return "\n".join([*lines, ""])


def _fit(runs: Sequence[Trace], cuts: Sequence[History], is_tuning: NDArray[np.bool_]) -> str:
    """The five numbers of ``judgement.forecast``, fitted anew on the tuning families."""
    used = [(trace, cut) for trace, cut, is_used in zip(runs, cuts, is_tuning, strict=True) if is_used]
    known = [(h, rate_to_come(cut), trace.is_spiky) for trace, cut in used if (h := spike_potential(cut)) is not None]
    risk = LogisticRegression(C=1e3).fit([[h, rate] for h, rate, _ in known], [is_spiky for *_, is_spiky in known])
    by_potential, by_rate = risk.coef_[0]
    waits = [
        (math.log10(min(10.0, max(0.01, height))), math.log10((trace.onset or 0) / cut.step - 1.0))
        for trace, cut in used
        if trace.is_spiky and (height := predicted_height(cut)) is not None
    ]
    slope, offset = np.polyfit([height for height, _ in waits], [wait for _, wait in waits], 1)
    return (
        f"Fitted on the tuning families: risk 1 / (1 + exp(-({risk.intercept_[0]:.2f} + {by_potential:.2f} h "
        f"+ {by_rate:.2f} r))), wait {10**offset:.2f} p^{slope:.2f}.\n"
    )
