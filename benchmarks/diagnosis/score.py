"""What the diagnoses of the injected faults come to: a confusion table and three rates with exact intervals."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

from scipy.stats import beta

from benchmarks.diagnosis.cases import NEVER, Case
from stabletune.judgement.causes import load_causes
from stabletune.judgement.diagnosis import diagnose
from stabletune.judgement.history import History
from stabletune.judgement.spikes import SpikeDetector
from stabletune.records import UNEXPLAINED, TrialResult

NO_SPIKE = "no spike"
NOT_SHOWN = "spike with beta2 .9 too"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One run: what was injected and what was named at the first spike from there on."""

    case: Case
    named: str
    status: str
    overhead: float

    @property
    def is_scored(self) -> bool:
        """Whether the loss spiked, and not without the fault as well."""
        return self.named not in (NO_SPIKE, NOT_SHOWN)

    @property
    def is_right(self) -> bool:
        """Whether the injected cause was named."""
        return self.named == self.case.expected

    @property
    def is_wrong(self) -> bool:
        """Whether another cause was named, which is worse than none."""
        return self.is_scored and not self.is_right and self.named != UNEXPLAINED


def outcome(case: Case, result: TrialResult, twin: TrialResult | None) -> Outcome:
    """Take the first diagnosis at or after the injection; none if the run's twin without the fault spiked as well."""
    begins = case.at if case.at < NEVER else 0
    if twin is not None and result.is_spiky and twin.is_spiky:
        return Outcome(case, NOT_SHOWN, result.status, result.overhead)
    named = next((found.cause for found in result.diagnoses if found.step >= begins), NO_SPIKE)
    return Outcome(case, named, result.status, result.overhead)


def replayed(result: TrialResult) -> TrialResult:
    """The result with the diagnoses that today's rules make of what was recorded."""
    history = History(result.spec, SpikeDetector())
    for loss, norm, lr in zip(result.losses, result.gradient_norms, result.learning_rates, strict=True):
        if loss > 0.0 or loss != loss:
            history.add(float(loss), gradient_norm=float(norm), lr=float(lr))
    history.measurements, history.inspections = list(result.measurements), list(result.inspections)
    return dataclasses.replace(result, diagnoses=diagnose(history))


def summary(outcomes: Sequence[Outcome], title: str) -> str:
    """The table and the rates in Markdown."""
    scored = [found for found in outcomes if found.is_scored]
    causes = [cause.NAME for cause in load_causes()] + [UNEXPLAINED]
    counts = Counter((found.case.expected, found.named) for found in outcomes)
    head = ["injected", "runs", *causes, NO_SPIKE, NOT_SHOWN]
    lines = [f"### {title}", "", _row(head), _row(["---"] + ["---:"] * (len(head) - 1))]
    for cause in causes:
        row = [counts[cause, named] for named in head[2:]]
        lines.append(_row([cause, str(sum(row)), *(str(n) if n else "" for n in row)]))
    n_right, n_wrong = sum(f.is_right for f in scored), sum(f.is_wrong for f in scored)
    n_open = len(scored) - n_right - n_wrong
    lines += ["", f"Of {len(scored)} runs that spiked: {_rate(n_right, len(scored))} right, "]
    lines[-1] += f"{_rate(n_wrong, len(scored))} wrong with confidence, {_rate(n_open, len(scored))} left unexplained."
    return "\n".join(lines) + "\n"


def interval(part: int, whole: int) -> tuple[float, float]:
    """Exact 95 % bounds (Clopper and Pearson) of a rate."""
    low = float(beta.ppf(0.025, part, whole - part + 1)) if part else 0.0
    high = float(beta.ppf(0.975, part + 1, whole - part)) if part < whole else 1.0
    return low, high


def _rate(part: int, whole: int) -> str:
    if not whole:
        return "none"
    low, high = interval(part, whole)
    return f"{part} ({part / whole:.1%}, 95 % {low:.1%}-{high:.1%})"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
