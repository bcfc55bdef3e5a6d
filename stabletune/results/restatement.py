"""Settings proven at a trial's size, restated for the real run's: by published rules, each named with what it changed.

The proof does not extend to what is restated; every export of it says so.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from stabletune.errors import ExportError
from stabletune.hyperparameters import HYPERPARAMETERS
from stabletune.results.recommendation import Recommendation
from stabletune.results.store import RunFolder

RESTATED = "restated"
MOST_DIGITS = 12
SENSIBLE_BETA2 = (1e-3, 1.0 - 1e-7)


@dataclasses.dataclass(frozen=True)
class Size:
    """A quantity at the trial's size and at the real run's."""

    proven: float
    wanted: float

    @property
    def ratio(self) -> float:
        """Wanted over proven."""
        return self.wanted / self.proven


def restate_for(
    folder: RunFolder,
    *,
    total_steps: int | None = None,
    batch_size: str | None = None,
    model_width: str | None = None,
) -> Recommendation:
    """The recommendation of a search, for a run of the sizes that the options of ``stabletune export`` name.

    Raises:
        OutputFolderError: nothing was recommended there.
        ExportError: an option cannot be understood.
    """
    recommendation = folder.proven_recommendation()
    known = {**(folder.config().get("workload_args") or {}), **(recommendation.settings.get("workload_args") or {})}
    return restate(
        recommendation,
        total_steps=total_steps,
        batch_size=None if batch_size is None else size_of("--batch-size", batch_size, known.get("batch_size")),
        model_width=None if model_width is None else size_of("--model-width", model_width, known.get("width")),
    )


def size_of(option: str, text: str, known: Any) -> Size:
    """The sizes that an option such as ``--batch-size 512`` or ``32:512`` names.

    Args:
        option: its name, for messages.
        text: the wanted size, or the proven and the wanted one.
        known: the size that the search ran with, if it says.

    Raises:
        ExportError: no positive whole numbers, or no proven size.
    """
    proven, colon, wanted = text.rpartition(":")
    proven = proven if colon else str(known)
    if not _is_size(wanted) or (colon and not _is_size(proven)):
        raise ExportError(
            f"{option}: must be a whole number above 0, or two of them as in 32:512, each of at most {MOST_DIGITS} "
            f"digits, but got {text[:40]!r}. Give the real run's size."
        )
    if not _is_size(proven):
        raise ExportError(
            f"{option}: the size of the trials must be known, but the search has no such workload argument. "
            f"Give both, as in {option} 32:{wanted}."
        )
    return Size(int(proven), int(wanted))


def _is_size(text: str) -> bool:
    return text.isdecimal() and len(text) <= MOST_DIGITS and int(text) > 0


def restate(
    recommendation: Recommendation,
    *,
    total_steps: int | None = None,
    batch_size: Size | None = None,
    model_width: Size | None = None,
) -> Recommendation:
    r"""The settings for a run of another length, batch size or width.

    ======================  ============================================================  =======================
    changed                 rule                                                          source
    ======================  ============================================================  =======================
    total steps             the schedule is stretched, the same share of it warm-up       ``warmup_ratio`` itself
    batch size, times k     :math:`\beta_2' = \beta_2^k`: the half-life of v in samples   arXiv:2507.07101
    batch size, times k     :math:`\eta' = \sqrt k\,\eta`, :math:`\epsilon' = \epsilon / \sqrt k`   arXiv:2205.10320
    width, times m          :math:`\eta' = \eta / m`, of hidden and output matrices       arXiv:2203.03466, table 8
    ======================  ============================================================  =======================

    The evidence stays that of the trial's size; ``provenance["restated"]`` has a sentence for each rule.

    Raises:
        ExportError: ``total_steps`` is not positive, or the sizes lie so far apart that the rules give nonsense.
    """
    settings, sentences = dict(recommendation.settings), []
    if total_steps is not None:
        settings["schedule"], sentence = _stretched(settings.get("schedule") or {}, total_steps)
        sentences.append(sentence)
    if batch_size is not None and batch_size.ratio != 1.0:
        sentences += _for_batch_size(settings, batch_size)
    if model_width is not None and model_width.ratio != 1.0:
        sentences.append(_for_width(settings, model_width))
    if not sentences:
        return recommendation
    for name in ("lr", "beta2", "eps"):
        is_sensible = name != "beta2" or SENSIBLE_BETA2[0] <= settings[name] <= SENSIBLE_BETA2[1]
        if not (is_sensible and HYPERPARAMETERS[name].accepts(settings[name])):
            raise ExportError(
                f"restating {name}: the rules give {settings[name]:.4g}, which no optimizer should be given. "
                "The sizes lie too far apart for them: search nearer to the real run's."
            )
    warning = "These settings are restated by rule: what was proven is the trial's size, not the real run's."
    provenance = {**recommendation.provenance, RESTATED: [warning, *sentences]}
    return Recommendation(settings, recommendation.evidence, provenance)


def _stretched(schedule: Mapping[str, Any], total_steps: int) -> tuple[dict[str, Any], str]:
    if total_steps < 1:
        raise ExportError(f"--total-steps: must be at least 1, but got {total_steps}. Give the length of the real run.")
    ratio = float(schedule.get("warmup_ratio") or 0.0)
    sentence = f"The schedule spans {total_steps} steps, {round(ratio * total_steps)} of them warm-up: the same share."
    return {**schedule, "total_steps": total_steps}, sentence


def _for_batch_size(settings: dict[str, Any], size: Size) -> list[str]:
    root = math.sqrt(size.ratio)
    old = {name: float(settings[name]) for name in ("lr", "beta2", "eps")}
    new = {"lr": old["lr"] * root, "beta2": old["beta2"] ** size.ratio, "eps": old["eps"] / root}
    settings.update(new)
    batches = f"batch size {size.proven:g} to {size.wanted:g}"
    sentences = [
        f"beta2 {old['beta2']:.6g} to {new['beta2']:.6g}, {batches}: the same half-life in samples (arXiv:2507.07101).",
        f"lr {old['lr']:.4g} to {new['lr']:.4g} and eps {old['eps']:.4g} to {new['eps']:.4g}, {batches}: "
        "square-root scaling (arXiv:2205.10320).",
    ]
    if new["beta2"] < float(settings["beta1"]):
        sentences.append(f"beta2 falls below beta1 = {settings['beta1']}, untried territory: search at this size.")
    return sentences


def _for_width(settings: dict[str, Any], size: Size) -> str:
    old = float(settings["lr"])
    settings["lr"] = old / size.ratio
    return (
        f"lr {old:.4g} to {settings['lr']:.4g}, width {size.proven:g} to {size.wanted:g}: 1/width for hidden and "
        f"output matrices (arXiv:2203.03466); embeddings, biases and gains could keep {old:.4g}."
    )
