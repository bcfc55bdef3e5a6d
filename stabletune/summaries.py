"""What a command ends with, as text: results in, strings out that ``cli`` prints."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stabletune.judgement.spikes import olmo_spike_score
from stabletune.records import Diagnosis, TrialResult

if TYPE_CHECKING:
    from stabletune.study.compare import Comparison
    from stabletune.study.proof.outcome import StudyResult

SPIKES_SHOWN = 3
BEFORE_A_SPIKE = 100


def study_summary(result: StudyResult) -> str:
    """What a search ends with: settings, baseline against recommended, where the files are."""
    recommendation = result.recommendation
    if recommendation is None:
        return f"{result.message}\nFiles: {result.folder}"
    evidence = recommendation.evidence
    objective, n = evidence["objective"], evidence["confirm_seeds"]
    in_force = {k: v for k, v in recommendation.settings.items() if v is not None and v is not False}
    settings = ", ".join(f"{name} {as_text(value)}" for name, value in in_force.items())
    upper = evidence["spiky_run_rate_upper_95"]
    return "\n".join(
        (
            f"Recommended: {settings}",
            f"{'':14}{'recommended':>14}{'baseline':>14}",
            f"{'spiky runs':14}{_of(evidence['spiky_runs'], n):>14}{_of(evidence['baseline_spiky_runs'], n):>14}",
            f"{objective['metric']:14}{objective['recommended']:>14.4g}{short(objective['baseline'], '.4g'):>14}"
            f"   ratio {short(objective['ratio'], '.3g')}",
            f"Proven over {evidence['confirmed_steps']} steps on {_counted(n, 'fresh seed')}; "
            f"{_counted(evidence['candidates_tried'], 'candidate')} tried; "
            f"the rate of spiky runs is below {upper:.0%} (exact 95 % bound).",
            *([f"Warning: {evidence['warning']}"] if evidence.get("warning") else []),
            *_predicted(evidence),
            f"Training steps spent: {evidence['training_steps_spent']}",
            f"Files: {result.folder} (recommended.yaml, report.html, trials.csv)",
        )
    )


def _counted(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"


def _predicted(evidence: Mapping[str, Any]) -> list[str]:
    """What the models say of further runs, where the evidence has it."""
    rate, margin = evidence.get("predicted_clean_rate"), evidence.get("lr_margin")
    if rate is None:
        return []
    edge = "" if margin is None else f"; the edge is predicted at {margin:g} times this learning rate"
    return [f"Predicted from all runs: {rate:.0%} of further ones stay clean{edge}."]


def comparison_summary(comparison: Comparison) -> str:
    """What ``stabletune compare`` ends with."""
    arms, n = (comparison.recommended, comparison.baseline), len(comparison.baseline.results)
    head = "".join(f"{name:>14}" for name in ("recommended", "baseline"))
    lines = [
        f"{comparison.steps} steps, {n} fresh seeds",
        f"{'':16}{head}",
        f"{'spiky runs':16}" + "".join(f"{_of(arm.n_spiky, n):>14}" for arm in arms),
        f"{'rate below':16}" + "".join(f"{arm.spiky_rate_upper:>14.0%}" for arm in arms) + "   exact 95 % bound",
        f"{comparison.metric:16}" + "".join(f"{arm.objective:>14.4g}" for arm in arms) + "   median over seeds",
    ]
    steps = comparison.steps_to_baseline()
    if steps is not None:
        reached = f"{steps:.0f}" if math.isfinite(steps) else "never"
        lines.append(f"{'steps to loss':16}{reached:>14}{comparison.steps:>14}   to the baseline's final loss")
    interval = comparison.ratio_interval()
    if interval is not None:
        lines.append("ratio {:.3g}, 95 % interval {:.3g} to {:.3g} over paired seeds".format(*interval))
    return "\n".join(lines)


def trial_summary(result: TrialResult) -> str:
    """What ``stabletune trial`` ends with: readings first, the verdict last, where a terminal shows it."""
    lines = [*_readings(result), f"{result.status}: {result.reason}"]
    if result.objective is not None:
        lines.append(f"{result.spec.metric}: {result.objective:.6g}")
    lines += _forecast(result)
    why = {found.step: found for found in result.diagnoses}
    worst = max(result.episodes, key=lambda e: e.worst_ratio, default=None)
    for e in (e for n, e in enumerate(result.episodes) if n < SPIKES_SHOWN or e is worst):
        lines.append(
            f"spike at step {e.start}: {e.worst_ratio:.3g} times its median, severity {e.severity:.3g}, "
            f"{e.steps_lost} steps lost"
        )
        lines += _diagnosis(why.pop(e.start, None))
    if len(result.episodes) > SPIKES_SHOWN:
        starts = {e.start for e in result.episodes}
        counts = Counter(found.cause for found in result.diagnoses if found.step in starts).most_common()
        causes = ", ".join(f"{cause} {n}" for cause, n in counts)
        lines.append(f"{len(result.episodes)} spikes in all, each in diagnoses.jsonl with --output: {causes}")
    lines += _diagnosis(why.get(result.steps) if result.status == "diverged" else None)
    finite = [loss for loss in result.losses.tolist() if math.isfinite(loss)]
    score = olmo_spike_score(finite)
    lines.append(f"OLMo spike score (share of steps 7 deviations above the last 1,000 losses): {score:.3%}")
    return "\n".join(lines)


def _readings(result: TrialResult) -> list[str]:
    """Some twenty readings of S over the run, and the highest in the hundred steps before each spike."""
    readings = [m for m in result.measurements if m.sharpness_ratio is not None]
    shown = {m.step for m in readings[:: max(1, len(readings) // 20)]}
    for e in result.episodes:
        before = [m for m in readings if e.start - BEFORE_A_SPIKE <= m.step <= e.start]
        shown |= {m.step for m in before if m.sharpness_ratio == max(r.sharpness_ratio or 0.0 for r in before)}
    return [
        f"step {m.step:>6}  loss {m.loss:<11.4g} sharpness_ratio {m.sharpness_ratio:<8.3f} "
        f"v_hat_staleness {short(m.v_hat_staleness, '.3g')}{if_read(' sharpness ', m.sharpness)}"
        for m in readings
        if m.step in shown
    ]


def _forecast(result: TrialResult) -> list[str]:
    """For a clean run that is shorter than the horizon: whether it would spike later, and about when."""
    if (
        result.risk is None
        or result.expected_onset is None
        or result.is_spiky
        or result.steps >= result.spec.full_steps
    ):
        return []
    when = f", if so about step {result.expected_onset:.0f}" if result.expected_onset < result.spec.full_steps else ""
    return [
        f"forecast: risk {result.risk:.2f} of a spike before step {result.spec.full_steps}{when}; compare it between "
        "settings, workloads differ in how many of the same risk spike"
    ]


def _diagnosis(found: Diagnosis | None) -> list[str]:
    """Cause, evidence and the one change."""
    return [] if found is None else [f"  cause: {found.cause}: {found.evidence}", f"  change: {found.remedy}"]


def short(value: float | None, form: str) -> str:
    """A number in the form given; a dash for None."""
    return "-" if value is None else format(value, form)


def if_read(title: str, value: float | None) -> str:
    """A title with its number; nothing for None."""
    return "" if value is None else f"{title}{value:.3g}"


def as_text(value: Any) -> str:
    """A setting as a person writes it; mappings as names and values."""
    if isinstance(value, Mapping):
        named = [as_text(v) if k == "name" else f"{k} {as_text(v)}" for k, v in value.items()]
        return " ".join(named)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _of(part: int, whole: int) -> str:
    return f"{part} of {whole}"
