"""The report in a real browser: it draws, sorts, asks for nothing, and fits a phone and a printer."""

import pytest

from stabletune.results.report import write_report
from tests.results.report.studies import finished_study, fruitless_study, unfinished_study

MARKS = "document.querySelectorAll('.js-plotly-plot path.js-line, .js-plotly-plot .points path').length"


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return write_report(finished_study(tmp_path_factory.mktemp("report") / "run"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_chart_is_drawn_without_a_word_on_the_console_and_nothing_is_asked_for(open_page, report, scheme):
    page, said, asked = open_page(report.as_uri(), color_scheme=scheme)
    page.wait_for_function("document.querySelectorAll('.js-plotly-plot').length >= 3")
    assert page.evaluate(MARKS) > 10
    assert said == []
    assert asked == [report.as_uri()]


def test_light_and_dark_differ_in_ground_and_ink(open_page, report):
    inks = []
    for scheme in ("light", "dark"):
        page, _, _ = open_page(report.as_uri(), color_scheme=scheme)
        inks.append(
            page.evaluate("[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]")
        )
    assert inks[0][0] != inks[1][0]
    assert inks[0][1] != inks[1][1]


def test_a_table_sorts_by_its_head_and_back(open_page, report):
    page, said, _ = open_page(report.as_uri())
    table = page.locator("table.sortable").first

    def numbers():
        return [int(text.split()[0]) for text in table.locator("tbody tr td:first-child").all_inner_texts()]

    head = table.locator("thead th").first.locator("button")
    written = sorted(numbers())
    head.click()
    assert numbers() == written
    head.click()
    assert numbers() == written[::-1]
    assert said == []


def test_it_fits_a_phone_without_sideways_scrolling(open_page, report):
    page, said, _ = open_page(report.as_uri(), viewport={"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert said == []


def test_it_prints_with_all_its_charts(open_page, report):
    page, _, _ = open_page(report.as_uri())
    page.emulate_media(media="print")
    assert page.evaluate(MARKS) > 10
    assert page.pdf()[:5] == b"%PDF-"


@pytest.mark.parametrize("study", [fruitless_study, unfinished_study])
def test_a_study_without_a_recommendation_opens_as_well(open_page, tmp_path, study):
    page, said, _ = open_page(write_report(study(tmp_path / "run")).as_uri())
    assert page.locator("h2").count() > 0
    assert said == []


def test_names_with_html_in_them_run_nothing(open_page, tmp_path):
    folder = finished_study(tmp_path / "run")
    trap = "<img src=x onerror=\"document.title='caught'\">"
    folder.write_config({**folder.config(), "name": trap, "workload": trap})
    folder.write_analysis({**folder.analysis(), "outcome": trap})
    page, said, asked = open_page(write_report(folder).as_uri())
    assert page.title() == f"{trap} · stabletune"
    assert page.locator("img").count() == 0
    assert trap in page.locator("h1").inner_text()
    assert said == []
    assert len(asked) == 1
