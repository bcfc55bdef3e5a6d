"""The whole page: sections in reading order, style and script inlined, so that the one file is all there is."""

from __future__ import annotations

import json
import shlex
from importlib.resources import files

from plotly.offline import get_plotlyjs

from stabletune.errors import ExportError, OutputFolderError
from stabletune.results.exporters import export
from stabletune.results.report.charts import Chart, loss_chart, runs_to_draw, stability_chart, trials_chart
from stabletune.results.report.findings import Findings, read_findings
from stabletune.results.report.headline import headline
from stabletune.results.report.importance import importance_section
from stabletune.results.report.pilot import front_section, pilot_section
from stabletune.results.report.trials_table import causes_section, proof_section, trials_section
from stabletune.results.report.words import escape, number, tag
from stabletune.results.store import RunFolder
from stabletune.results.yaml_files import as_yaml


def build_page(folder: RunFolder) -> str:
    """``report.html`` as text; only reads.

    Raises:
        OutputFolderError: the folder holds no search, or one of its files cannot be read or is not as it was written.
    """
    try:
        return _page(folder)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        raise OutputFolderError(
            f"{folder.path}: its files must be as stabletune wrote them, but drawing them gave {type(error).__name__}: "
            f"{error}. Restore them; analysis.json and comparison.json may be deleted: `stabletune search --resume` "
            "and `stabletune compare` write them anew."
        ) from error


def _page(folder: RunFolder) -> str:
    findings = read_findings(folder)
    runs = runs_to_draw(findings)
    charts = [loss_chart(runs), stability_chart(runs), trials_chart(findings)]
    drawn = {chart["id"]: chart for chart in charts if chart is not None}
    sections = [
        headline(findings),
        _section("Loss", _chart("loss", drawn)),
        _section("Distance to the edge of stability", _chart("stability", drawn)),
        _section("The pilot", pilot_section(findings)),
        _section("Where the trials were", _chart("trials-map", drawn)),
        _section("What mattered", importance_section(findings)),
        _section("Speed against stability", front_section(findings)),
        _section(f"Trials ({number(len(findings.trials))})", trials_section(findings) if findings.trials else ""),
        _section("Why the loss spiked", causes_section(findings)),
        _section("Proof runs", proof_section(findings) if findings.candidates or findings.baseline.rows else ""),
        _details(findings),
    ]
    return _document(findings, "".join(sections), list(drawn.values()))


def _document(findings: Findings, body: str, charts: list[Chart]) -> str:
    name = escape(findings.config.get("name", findings.folder.path.name))
    workload = findings.config.get("workload")
    subtitle = tag("p", f"stabletune report{f' · {escape(workload)}' if workload else ''}", class_="subtitle")
    resources = files("stabletune.results.report")
    data = json.dumps(charts, allow_nan=False).replace("<", "\\u003c")
    scripts = [f'<script type="application/json" id="charts">{data}</script>']
    if charts:
        scripts.append(f"<script>{get_plotlyjs()}</script>")
    scripts.append(f"<script>{(resources / 'page.js').read_text(encoding='utf-8')}</script>")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        '<meta name="generator" content="stabletune report, version 1">\n'
        f"<title>{name} · stabletune</title>\n"
        f"<style>\n{(resources / 'page.css').read_text(encoding='utf-8')}</style>\n</head>\n<body>\n<main>\n"
        f"{tag('header', tag('h1', name) + subtitle)}\n{body}\n</main>\n{''.join(scripts)}\n</body>\n</html>\n"
    )


def _section(title: str, content: str) -> str:
    return tag("section", tag("h2", title) + content) if content else ""


def _chart(name: str, drawn: dict[str, Chart]) -> str:
    if name not in drawn:
        return ""
    return tag("figure", tag("div", "", id=name, class_="chart") + tag("figcaption", escape(drawn[name]["caption"])))


def _details(findings: Findings) -> str:
    """What only some readers want: the settings as code, where they come from, and the configuration."""
    parts = []
    recommendation = findings.recommendation
    if recommendation is not None:
        try:
            parts.append(_folded("The settings as torch code", export(recommendation, "torch")))
        except ExportError as error:
            parts.append(tag("p", escape(error)))
        evidence = {"evidence": recommendation.evidence, "provenance": recommendation.provenance}
        parts.append(_folded("Evidence and provenance", as_yaml(evidence)))
    parts.append(_folded("How to reproduce", _commands(findings)))
    return _section("Details", "".join(parts) + _folded("Configuration", as_yaml(findings.config)))


def _commands(findings: Findings) -> str:
    """Commands that run the search again, one recommended run, and the comparison on fresh seeds."""
    folder = shlex.quote(str(findings.folder.path))
    config = shlex.quote(str(findings.folder.path / "config.yaml"))
    lines = [
        "# the whole search, into another folder",
        f"stabletune search {config} --output again",
    ]
    if findings.recommendation is not None:
        values = findings.recommendation.values()
        searched = [name for name in findings.config.get("search_space") or {} if name in values]
        settings = " ".join(f"--param {name}={json.dumps(values[name])}" for name in searched)
        steps = findings.budget("full_steps", 0)
        lines += [
            "# one run of the recommended settings over the full horizon",
            f"stabletune trial {config} --steps {steps} {settings}",
            "# recommended against baseline, on seeds that neither has seen",
            f"stabletune compare {folder}",
        ]
    return "\n".join(lines)


def _folded(title: str, text: str) -> str:
    return tag("details", tag("summary", title) + tag("pre", escape(text), tabindex="0"))
