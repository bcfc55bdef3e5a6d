"""How well the first fifth of a run tells whether it will spike later, among runs that are clean until then."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.corpus.traces import Trace
from benchmarks.prediction.replay import history_at
from stabletune.judgement.forecast import expected_onset, horizon_features, spike_risk
from stabletune.judgement.history import History

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
    return ["\n".join([*rows, ""]), _when(runs, cuts, is_tuning), _fit(cuts, labels, is_tuning)]


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
    """Level, fall, slope, one-step scale, and scores of the loss so far."""
    floor, step = history.spikes.loss_floor, history.step
    logs = np.log(np.asarray(history.losses) - floor)
    scale = float(np.median(np.abs(np.diff(logs[-100:]))))
    halfway = float(np.median(logs[step // 2 - 10 : step // 2 + 10]))
    last, first = float(np.median(logs[-20:])), float(np.median(logs[:10]))
    rises = [logs[k] - np.median(logs[max(0, k - 100) : k]) for k in range(20, step, 5)]
    return [last - first, last - halfway, math.log(scale + 1e-9), history.spikes.worst_score, max(rises), rises[-1]]


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
    height, sharpness = horizon_features(history) or (-2.0, -2.0)
    return [
        height,
        sharpness,
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
    """How far off the expected step of the first spike is, beside one number for all."""
    spiking = [k for k, trace in enumerate(runs) if trace.is_spiky and not is_tuning[k]]
    ahead: Callable[[int], float] = lambda k: (runs[k].onset or 0) / cuts[k].step - 1.0  # noqa: E731
    usual = float(np.median([ahead(k) for k, trace in enumerate(runs) if trace.is_spiky and is_tuning[k]]))
    lines = ["### When, of the runs that spike later", "", "| expected | median factor off | within a factor of two |"]
    lines.append("|---|---|---|")
    for name, expected in (
        ("`expected_onset`", [expected_onset(cuts[k]) / cuts[k].step - 1.0 for k in spiking]),
        ("the median of the tuning runs", [usual for _ in spiking]),
    ):
        off = np.array([abs(math.log(e / ahead(k))) for e, k in zip(expected, spiking, strict=True)])
        lines.append(f"| {name} | {math.exp(float(np.median(off))):.2f} | {np.mean(off < math.log(2)):.2f} |")
    return "\n".join([*lines, ""])


def _fit(cuts: Sequence[History], labels: NDArray[np.bool_], is_tuning: NDArray[np.bool_]) -> str:
    """The two numbers of ``spike_risk``, fitted anew on the tuning families."""
    known = [(min(f), y) for h, y, t in zip(cuts, labels, is_tuning, strict=True) if t and (f := horizon_features(h))]
    model = LogisticRegression(C=1e6).fit([[x] for x, _ in known], [y for _, y in known])
    slope, offset = float(model.coef_[0][0]), float(model.intercept_[0])
    return f"Fitted on the tuning families: risk = 1 / (1 + exp(-({offset:.2f} + {slope:.2f} h))).\n"
