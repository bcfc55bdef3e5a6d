from __future__ import annotations

import html
import html.parser
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stabletune.errors import OutputFolderError
from stabletune.results.recommendation import Recommendation, settings_from
from stabletune.results.report import write_report
from stabletune.results.store import RunFolder
from tests.results.report.studies import BEST, CONFIG, finished_study, fruitless_study, proof_run, unfinished_study
from tests.results.runs import PARAMS, make_measurement, make_result, make_spec

VOID = {"meta", "link", "br", "img", "hr", "input"}


class Outline(html.parser.HTMLParser):
    """Checks that every element is closed, and gathers the text outside scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def page_of(folder: RunFolder) -> str:
    return write_report(folder).read_text(encoding="utf-8")


def outline_of(page: str) -> Outline:
    outline = Outline()
    outline.feed(page)
    assert outline.open == []
    return outline


def charts_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="charts">(.*?)</script>', page, re.S)
    assert found is not None
    return {chart["id"]: chart for chart in json.loads(found.group(1))}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> str:
    return page_of(finished_study(tmp_path_factory.mktemp("finished") / "run"))


def test_a_finished_study_leads_with_the_settings_and_their_proof(finished: str) -> None:
    text = outline_of(finished).text
    assert "without a loss spike on all 5 fresh seeds" in text
    assert "0 of 5" in text and "5 of 5" in text
    assert "as high as 52 %" in text and "2 candidates tried" in text
    assert "0.0123" in text and "0.9612" in text


def test_causes_of_spikes_are_counted_with_an_example(tmp_path: Path) -> None:
    folder = finished_study(tmp_path / "run")
    rows = folder.trials.rows()
    found = {"cause": "bad batch", "evidence": "batch <7> stands out.", "remedy": "Drop it."}
    folder.trials.rewrite([{**row, **(found if row["trial"] in (1, 2) else {})} for row in rows])
    text = outline_of(page_of(folder)).text
    assert "Why the loss spiked" in text and "batch <7> stands out." in text and "Drop it." in text


def test_the_page_is_self_contained(finished: str) -> None:
    outline = outline_of(finished)
    assert all("src" not in attributes for _, attributes in outline.tags)
    assert all(tag != "link" for tag, _ in outline.tags)
    assert "@import" not in finished.split("</style>")[0] and "url(" not in finished.split("</style>")[0]
    assert "Plotly" in finished


def test_the_charts_show_every_proof_run_and_mark_every_spike(finished: str) -> None:
    charts = charts_of(finished)
    assert set(charts) == {"loss", "stability", "trials-map"}
    lines = [trace for trace in charts["loss"]["traces"] if not trace.get("is_mark")]
    assert [trace["role"] for trace in lines].count("baseline") == 5
    assert [trace["role"] for trace in lines].count("recommended") == 5
    marks = [trace for trace in charts["loss"]["traces"] if trace.get("is_mark")]
    assert sum(len(trace["x"]) for trace in marks) == 10
    assert max(len(trace["x"]) for trace in lines) <= 1000
    assert charts["stability"]["axes"][0]["edge"] == 1.0


def test_the_recommended_trial_is_found_by_its_settings(finished: str) -> None:
    ring = charts_of(finished)["trials-map"]["ring"]
    assert ring == pytest.approx([BEST["lr"], 1 - BEST["beta2"]])


def test_every_trial_is_listed_with_why_it_ended(finished: str) -> None:
    text = outline_of(finished).text
    assert "the loss is nan; recorded as diverged." in text and "Trials (24)" in text


def test_what_users_and_their_errors_wrote_is_escaped(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.create({**CONFIG, "name": "<script>alert(1)</script>", "workload": '"><img src=x onerror=alert(2)>'})
    folder.record(make_result(make_spec(0), status="failed", reason="</td></script><b>&", objective=None))
    folder.record(make_result(make_spec(1, lr=0.1, beta2=0.9), reason="</script><script>alert(3)</script>"))
    folder.write_analysis({"outcome": "<i>outcome</i>"})
    outline = outline_of(page_of(folder))
    assert not {tag for tag, _ in outline.tags} & {"img", "b", "i"}
    assert "</td></script><b>&" in outline.text


def test_an_unfinished_study_says_how_far_it_is(tmp_path: Path) -> None:
    page = page_of(unfinished_study(tmp_path / "run"))
    assert "Not finished: 9 of 24 trials are done" in outline_of(page).text
    roles = {trace["role"] for trace in charts_of(page)["loss"]["traces"]}
    assert roles == {"baseline", "best so far"}


def test_a_study_without_any_trial_still_has_a_page(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.create(CONFIG)
    page = page_of(folder)
    assert "0 of 24 trials are done" in outline_of(page).text and charts_of(page) == {}


def test_a_study_in_which_nothing_survived_shows_the_nearest_candidate(tmp_path: Path) -> None:
    page = page_of(fruitless_study(tmp_path / "run"))
    text = outline_of(page).text
    assert "Nothing survived the proof" in text and "2 candidates were sent" in text
    assert "1 of 2" in text and "not a recommendation" in text
    assert {trace["role"] for trace in charts_of(page)["loss"]["traces"]} == {"nearest"}


def test_the_studys_own_words_for_its_outcome_are_used(tmp_path: Path) -> None:
    folder = fruitless_study(tmp_path / "run")
    folder.write_analysis({"outcome": "None of 2 candidates survived the proof at 2500 steps."})
    assert "None of 2 candidates survived" in outline_of(page_of(folder)).text


def test_a_study_that_ran_out_of_time_in_its_proof_is_not_called_fruitless(tmp_path: Path) -> None:
    folder = fruitless_study(tmp_path / "run")
    folder.write_analysis({"ending": "out_of_time", "outcome": "The time ended before the proof was complete."})
    text = outline_of(page_of(folder)).text
    assert "Not finished: the time was up" in text and "before the proof was complete" in text
    assert "Nothing survived" not in text


def test_a_recommended_baseline_is_called_that(tmp_path: Path) -> None:
    folder = unfinished_study(tmp_path / "run", n_trials=24)
    for seed in (1, 2):
        folder.record(proof_run(0, "confirmation", seed, spikes=[]))
    evidence = {"confirmed_steps": 2500, "confirm_seeds": 2, "spiky_runs": 0, "objective": {"ratio": 1.0}}
    Recommendation(settings_from(PARAMS, "constant"), evidence).save(folder.recommendation_path)
    text = outline_of(page_of(folder)).text
    assert "The baseline itself is recommended" in text
    assert "0 of 2 0 of 2" in text


def test_a_run_cut_short_for_another_seeds_spike_counts_neither_way(tmp_path: Path) -> None:
    folder = fruitless_study(tmp_path / "run")
    spec = make_spec(7, purpose="confirmation", seed=9, **BEST)
    folder.record(make_result(spec, status="stopped", reason="no longer needed", objective=None, losses=np.ones(9)))
    assert "1 of 2" in outline_of(page_of(folder)).text


def test_losses_below_zero_get_a_linear_axis(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.create(CONFIG)
    folder.record(make_result(make_spec(0), losses=np.linspace(1, -1, 50)))
    assert charts_of(page_of(folder))["loss"]["axes"][0]["log"] is False


def test_a_diverged_run_is_drawn_up_to_its_last_finite_loss(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.create(CONFIG)
    folder.record(make_result(make_spec(0), status="diverged", losses=np.array([1.0, 2.0, np.inf, np.nan])))
    (trace,) = charts_of(page_of(folder))["loss"]["traces"]
    assert trace["y"] == [1.0, 2.0, None, None]


def test_a_folder_without_a_search_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputFolderError, match="Name the folder that `stabletune search` wrote"):
        write_report(RunFolder(tmp_path))


def test_an_interrupted_proof_is_not_called_a_failure(tmp_path: Path) -> None:
    folder = fruitless_study(tmp_path / "run")
    folder.record(proof_run(10, "confirmation", 4, spikes=[], lr=0.0008, beta2=0.998))
    text = outline_of(page_of(folder)).text
    assert "the proof is under way" in text and "Nothing survived" not in text


def test_a_sharpness_ratio_far_over_its_edge_gets_a_logarithmic_axis(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.create(CONFIG)
    folder.record(make_result(make_spec(0), measurements=(make_measurement(5, sharpness_ratio=40.0),)))
    assert charts_of(page_of(folder))["stability"]["axes"][0]["log"] is True


def test_a_baseline_that_ends_lower_but_spikes_is_said_to(tmp_path: Path) -> None:
    folder = unfinished_study(tmp_path / "run", n_trials=24)
    evidence = {"confirm_seeds": 5, "spiky_runs": 0, "objective": {"ratio": 1.5}, "baseline_spiky_runs": 4}
    Recommendation(settings_from({**PARAMS, **BEST}, "constant"), evidence).save(folder.recommendation_path)
    assert "The baseline ends lower, but 4 of its runs had a spike." in outline_of(page_of(folder)).text


def test_the_commands_that_reproduce_it_are_there(tmp_path: Path) -> None:
    folder = finished_study(tmp_path / "a run")
    text = html.unescape(write_report(folder).read_text(encoding="utf-8"))
    config = f"'{folder.path / 'config.yaml'}'"
    assert f"stabletune search {config} --output again" in text
    assert f"stabletune trial {config} --steps 2500 --param lr=0.0123 --param beta2=0.9612" in text
    assert f"stabletune compare '{folder.path}'" in text
