"""The first screen: the verdict in a sentence, the settings, and the proof beside the baseline's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stabletune.hyperparameters import MITIGATIONS
from stabletune.results.recommendation import REQUIRED
from stabletune.results.report.findings import Findings, Proof, flat_settings, is_finite
from stabletune.results.report.words import NOTHING, escape, number, setting, share, table, tag


def headline(findings: Findings) -> str:
    """Verdict, settings and proof."""
    kind, title, sentences = _verdict(findings)
    verdict = tag("h2", title) + "".join(tag("p", sentence) for sentence in sentences)
    return tag("section", verdict + tag("div", _settings(findings) + _proof(findings), class_="pair"), class_=kind)


def _verdict(findings: Findings) -> tuple[str, str, list[str]]:
    """The section's class, its title, and what follows the title."""
    if findings.recommendation is not None:
        return "verdict good", _recommended_title(findings), _recommended_sentences(findings)
    outcome = findings.analysis.get("outcome")
    notes = [escape(outcome)] if isinstance(outcome, str) else []
    if findings.is_unfinished:
        done = share(len(findings.trials), findings.budget("trials", 0))
        return "verdict open", f"Not finished: {done} trials are done", notes or ["Nothing is recommended yet."]
    tried = len(findings.candidates)
    if findings.analysis.get("ending") == "out_of_time":
        return "verdict open", "Not finished: the time was up", notes or ["Nothing is recommended yet."]
    if not notes and any(proof.may_still_hold for proof in findings.candidates):
        return "verdict open", "Not finished: the proof is under way", ["Nothing is recommended yet."]
    if tried:
        sentence = (
            f"{tried} candidate{'s were' if tried > 1 else ' was'} sent to the proof on fresh seeds and none held. "
            "The settings below are the nearest, not a recommendation."
        )
        return "verdict bad", "Nothing survived the proof", notes or [sentence]
    return "verdict open", "Nothing has been proven", notes or ["No candidate has been sent to the proof."]


def _recommended_title(findings: Findings) -> str:
    evidence: Mapping[str, Any] = findings.recommendation.evidence if findings.recommendation else {}
    spiky, seeds = evidence.get("spiky_runs"), evidence.get("confirm_seeds")
    if findings.best is not None and findings.best.candidate == findings.baseline.candidate:
        return "The baseline itself is recommended: it held, and no other trial promised more"
    if not spiky:
        return f"These settings trained without a loss spike on all {number(seeds)} fresh seeds"
    return f"These settings are the best that held: {number(spiky)} of {number(seeds)} fresh seeds had a loss spike"


def _recommended_sentences(findings: Findings) -> list[str]:
    evidence: Mapping[str, Any] = findings.recommendation.evidence if findings.recommendation else {}
    objective = evidence.get("objective") or {}
    sentences = []
    if objective.get("ratio") is not None:
        metric, ratio = escape(objective.get("metric", "objective")), tag("strong", number(objective["ratio"]))
        values = [number(objective.get(name)) for name in ("recommended", "baseline")]
        sentences.append(
            f"{metric} {values[0]} against the baseline's {values[1]}: a ratio of {ratio}, smaller is better."
        )
        if is_finite(objective["ratio"]) and objective["ratio"] > 1 and evidence.get("baseline_spiky_runs"):
            spiky = number(evidence["baseline_spiky_runs"])
            sentences[-1] += f" The baseline ends lower, but {spiky} of its runs had a spike."
    if evidence.get("warning"):
        sentences.append(tag("strong", escape(evidence["warning"])))
    bound = evidence.get("spiky_run_rate_upper_95")
    if bound is not None:
        tried = evidence.get("candidates_tried", 1)
        sentences.append(
            f"How far to trust it: the true share of spiky runs may still be as high as {100 * float(bound):.0f} % "
            f"(exact 95 % bound, {number(tried)} candidate{'s' if tried != 1 else ''} tried). More seeds narrow it."
        )
    rate, margin = evidence.get("predicted_clean_rate"), evidence.get("lr_margin")
    if rate is not None:
        sentence = f"From all runs of the search {100 * float(rate):.0f} % of further ones are predicted to stay clean"
        wide = "" if margin is None else f"; the edge is predicted at {number(margin)} times this learning rate"
        sentences.append(f"{sentence}{wide}.")
    steps = evidence.get("training_steps_spent")
    if steps is not None:
        sentences.append(f"The whole search, proof included, took {number(steps)} training steps.")
    return sentences


def _settings(findings: Findings) -> str:
    """Every setting, recommended beside baseline; those that differ are marked."""
    chosen, title = _chosen_settings(findings)
    if not chosen:
        return ""
    before = findings.trial(findings.baseline.candidate) or {}
    names = [*REQUIRED, *MITIGATIONS, "amsgrad", "warmup_ratio", *(n for n in chosen if n.startswith("workload_args."))]
    rows = []
    for name in names:
        now, then = chosen.get(name), before.get(name)
        if name in (*MITIGATIONS, "amsgrad") and not now and not then:
            continue
        shown = tag("strong", setting(now)) if now != then else setting(now)
        rows.append([tag("code", escape(name)), shown, setting(then) if before else NOTHING])
    schedule = findings.config.get("schedule")
    if isinstance(schedule, Mapping) and schedule.get("name"):
        rows.append(["schedule", escape(schedule["name"]), escape(schedule["name"])])
    return tag("div", table(["setting", title, "baseline"], rows, class_="settings"))


def _chosen_settings(findings: Findings) -> tuple[Mapping[str, Any], str]:
    if findings.recommendation is not None:
        return flat_settings(findings.recommendation), "recommended"
    row = findings.trial(findings.best.candidate) if findings.best else None
    return row or {}, "nearest"


def _proof(findings: Findings) -> str:
    """The proof runs of both in one table."""
    best, baseline = findings.best, findings.paired_baseline
    if best is None and not baseline.rows:
        return ""
    title = "recommended" if findings.recommendation else "nearest"
    columns = [best or Proof(-1, []), baseline]
    worst = [proof.largest("worst_spike_ratio") for proof in columns]
    sharpest = [proof.largest("max_sharpness_ratio") for proof in columns]
    steps = [proof.largest("steps") for proof in columns]
    rows = [
        ["runs with a spike", *(tag("strong", share(proof.n_spiky, proof.n_runs)) for proof in columns)],
        [escape(_metric(findings)) + ", median", *(number(proof.objective) for proof in columns)],
        ["worst jump of the loss", *(NOTHING if value is None else f"{number(value)}×" for value in worst)],
        ["largest sharpness ratio", *(number(value) for value in sharpest)],
        ["steps per run", *(number(value) for value in steps)],
    ]
    return tag("div", table(["on fresh seeds", title, "baseline"], rows, class_="settings"))


def _metric(findings: Findings) -> str:
    objective = findings.config.get("objective")
    return str(objective.get("metric", "objective")) if isinstance(objective, Mapping) else "objective"
