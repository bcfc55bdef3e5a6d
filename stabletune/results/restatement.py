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
from stabletune.schedules import steps_of

RESTATED = "restated"
SIZES = "restated_sizes"
WARNING = "These settings are restated by rule: what was proven is the trial's size, not the real run's."
MOST_DIGITS = 12
SENSIBLE_BETA2 = (1e-3, 1.0 - 1e-7)


@dataclasses.dataclass(frozen=True)
class Size:
    """A whole quantity at the trial's size and at the real run's."""

    proven: int
    wanted: int

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
    reached = {name: last for name, (_, last) in _sizes(recommendation).items()}
    sizes = {"batch_size": known.get("batch_size"), "model_width": known.get("width"), **reached}
    return restate(
        recommendation,
        total_steps=total_steps,
        batch_size=None if batch_size is None else size_of("--batch-size", batch_size, sizes["batch_size"]),
        model_width=None if model_width is None else size_of("--model-width", model_width, sizes["model_width"]),
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
    width, times m          :math:`\eta' = \eta / m`, of hidden and output matrices       arXiv:2203.03466, table 3
    ======================  ============================================================  =======================

    The rule for beta2 takes v for an average whose weights fall by beta2 a step. Beside the following it does not say
    all, and a sentence tells what is left of it: ``beta2_exponent`` c (v remembers t^c steps, at as many samples
    k^(1-c) times as many as before; no other c' has (t/k)^c' = t^c / k at every t), ``second_moment_reset`` (it waits
    and forgets by steps), ``second_moment_clip`` θ (v rises at most β2 + (1-β2) θ times a step) and ``amsgrad`` (a
    maximum has no half-life). ``update_clip`` d is refused where it could bite and no longer can: g is in v̂, so that
    the update's rms is at most 1/√(1-β2), and d at or above that never bites.

    The rule for the width is Adam's row of that table and presupposes a model parametrised by muP: initial variance
    1/fan_in of hidden and 1/fan_in² of output matrices, attention by 1/d. Of any other model the lr at another width
    does not follow. What the table leaves alone, input weights and biases, keeps its lr by ``lr_scale``.

    Restating again goes on from the sizes reached: 32 to 64 and 64 to 128 is 32 to 128. The evidence stays that of the
    trial's size; ``provenance["restated"]`` has a sentence for each rule of each time.

    Raises:
        ExportError: ``total_steps`` is not positive; a proven size is not that of the settings; ``update_clip`` could
            no longer bite; or the sizes lie so far apart that the rules give nonsense.
    """
    reached = _reached(recommendation, {"batch_size": batch_size, "model_width": model_width})
    settings, sentences = dict(recommendation.settings), []
    if total_steps is not None:
        settings["schedule"], sentence = _stretched(settings.get("schedule") or {}, total_steps)
        sentences.append(sentence)
    if batch_size is not None and batch_size.ratio != 1.0:
        sentences += _for_batch_size(settings, batch_size)
    if model_width is not None and model_width.ratio != 1.0:
        sentences += _for_width(settings, model_width, first=reached["model_width"][0])
    if not sentences:
        return recommendation
    _refuse_nonsense(settings)
    provenance = {
        **recommendation.provenance,
        RESTATED: [*(recommendation.provenance.get(RESTATED) or [WARNING]), *sentences],
        SIZES: reached,
    }
    return Recommendation(settings, recommendation.evidence, provenance)


def _sizes(recommendation: Recommendation) -> dict[str, list[int]]:
    """The size of the trials and the one reached by what was restated so far, of each quantity that was."""
    return dict(recommendation.provenance.get(SIZES) or {})


def _reached(recommendation: Recommendation, sizes: Mapping[str, Size | None]) -> dict[str, list[int]]:
    """The same once these are restated too, each from the size that it has reached."""
    reached = _sizes(recommendation)
    for name, size in sizes.items():
        if size is not None:
            first, last = reached.get(name, [size.proven, size.proven])
            _refuse_another_start(name, size, last)
            reached[name] = [first, size.wanted]
    return reached


def _refuse_another_start(name: str, size: Size, reached: int) -> None:
    if reached != size.proven:
        raise ExportError(
            f"--{name.replace('_', '-')}: must go on from {reached}, for which these settings were restated before, "
            f"but got {size.proven}:{size.wanted}. Give {reached}:{size.wanted}."
        )


def _refuse_nonsense(settings: Mapping[str, Any]) -> None:
    for name in ("lr", "beta2", "eps"):
        is_sensible = name != "beta2" or SENSIBLE_BETA2[0] <= settings[name] <= SENSIBLE_BETA2[1]
        if not (is_sensible and HYPERPARAMETERS[name].accepts(settings[name])):
            raise ExportError(
                f"restating {name}: the rules give {settings[name]:.4g}, which no optimizer should be given. "
                "The sizes lie too far apart for them: search nearer to the real run's."
            )


def _stretched(schedule: Mapping[str, Any], total_steps: int) -> tuple[dict[str, Any], str]:
    if total_steps < 1:
        raise ExportError(f"--total-steps: must be at least 1, but got {total_steps}. Give the length of the real run.")
    ratio = float(schedule.get("warmup_ratio") or 0.0)
    sentence = (
        f"The schedule spans {total_steps} steps, {steps_of(ratio, total_steps)} of them warm-up: the same share."
    )
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
    _refuse_idle_update_clip(settings.get("update_clip"), old["beta2"], new["beta2"])
    return [*sentences, *_beside_the_half_life(settings, size, old["beta2"])]


def _refuse_idle_update_clip(limit: float | None, old: float, new: float) -> None:
    if limit is not None and (1.0 - new) * limit**2 >= 1.0 > (1.0 - old) * limit**2:
        raise ExportError(
            f"restating beta2: update_clip={limit:g} must still be able to bite, but at beta2 {new:.4g} the rms of an "
            f"update is at most {(1.0 - new) ** -0.5:.4g}. Search nearer to the real run's batch size."
        )


def _beside_the_half_life(settings: Mapping[str, Any], size: Size, old: float) -> list[str]:
    """What keeping the half-life of beta2 in samples does not keep, where v is more than an average by beta2."""
    sentences, times = [], f"{size.ratio:.4g} times"
    exponent, reset, clip = (
        settings.get(name) for name in ("beta2_exponent", "second_moment_reset", "second_moment_clip")
    )
    if exponent is not None:
        sentences.append(
            f"beta2_exponent={exponent:g} stays, and beta2 is only the upper limit of its 1 - t^-{exponent:g}. Below "
            f"the limit v remembers {size.ratio ** (1.0 - exponent):.4g} times as many samples as before after "
            "as many samples: no exponent keeps the half-life."
        )
    if reset is not None:
        sentences.append(
            f"second_moment_reset={reset:g} stays and counts steps, each of {times} as many samples as before: "
            "after a reset the half-life in samples does not hold."
        )
    if clip is not None:
        most = [beta2 + (1.0 - beta2) * clip for beta2 in (old, settings["beta2"])]
        sentences.append(
            f"second_moment_clip={clip:g} stays: after the first steps it let v rise at most {most[0]:.4g} times in a "
            f"step before, and lets it {most[1]:.4g} times in one of {times} as many samples. How fast v follows a "
            "burst is not kept."
        )
    if settings.get("amsgrad"):
        sentences.append(
            "amsgrad stays: its v̂ is the largest so far and has no half-life; beta2 says only how fast it rises."
        )
    return sentences


def _for_width(settings: dict[str, Any], size: Size, *, first: int) -> list[str]:
    old = float(settings["lr"])
    settings["lr"] = old / size.ratio
    scale = size.wanted / first
    return [
        f"lr {old:.4g} to {settings['lr']:.4g}, width {size.proven:g} to {size.wanted:g}: 1/width for hidden and "
        "output matrices (arXiv:2203.03466, table 3, Adam); input weights, embeddings, biases and gains keep "
        f"{settings['lr'] * scale:.4g}, by a parameter group with lr_scale {scale:.4g}.",
        "This presupposes a model parametrised by muP in the trials and in the real run. If it is not, parametrise it "
        "(the mup package) and search again, or search at the real width. Where its optimizer already divides the lr "
        "by the width, as mup's do, leave --model-width out. weight_decay stays: the decay of a step falls with lr.",
    ]
