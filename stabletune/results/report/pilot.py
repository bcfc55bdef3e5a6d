"""The pilot of ``stabletune compare`` as a table: recommended against baseline on the same fresh seeds."""

from __future__ import annotations

from stabletune.results.report.findings import Findings
from stabletune.results.report.words import NOTHING, escape, number, share, table, tag


def pilot_section(findings: Findings) -> str:
    """Both arms side by side, then what their difference is worth; empty before a comparison."""
    pilot = findings.comparison
    if not pilot:
        return ""
    arms = [pilot["recommended"], pilot["baseline"]]
    rows = [
        ["spiky runs", *(share(arm["n_spiky"], pilot["n_seeds"]) for arm in arms)],
        ["rate of spiky runs below (exact 95 % bound)", *(f"{100 * arm['spiky_rate_upper']:.0f} %" for arm in arms)],
        [f"{escape(pilot['metric'])}, median over seeds", *(number(arm["objective"]) for arm in arms)],
        ["steps to the baseline's final loss", number(pilot["steps_to_baseline"]), number(pilot["steps"])],
    ]
    ratio = pilot["ratio"]
    sentence = f"{number(pilot['n_seeds'])} fresh seeds of {number(pilot['steps'])} steps, nothing stopped early."
    if ratio is not None:
        middle, low, high = (number(value) for value in ratio)
        sentence += f" Ratio {tag('strong', middle)}, 95 % interval {low} to {high} over paired seeds."
    return tag("p", sentence) + table(["", "recommended", "baseline"], rows)


def front_section(findings: Findings) -> str:
    """The points of the front between speed and stability, from the fastest to the safest."""
    points = findings.analysis.get("front") or []
    names = list(dict.fromkeys(name for point in points for name in point["settings"]))
    rows = [
        [
            escape(point["trial"]) + (" ★" if point["is_recommended"] else ""),
            *(number(point["settings"].get(name)) if name in point["settings"] else NOTHING for name in names),
            number(point["objective"]),
            f"{100 * point['clean_rate']:.0f} %",
            number(point["n_proven"]),
        ]
        for point in points
    ]
    if not rows:
        return ""
    head = ["trial", *(escape(name) for name in names), "objective", "predicted to stay clean", "clean proof runs"]
    note = (
        "No candidate is both faster and safer than one of these, the recommended one (★) perhaps excepted. "
        "Without proof runs both numbers are predictions."
    )
    return tag("p", note) + table(head, rows)
