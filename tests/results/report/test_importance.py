from stabletune.results.report import write_report
from tests.results.report.studies import finished_study
from tests.results.report.test_page import Outline


def page(tmp_path, found):
    folder = finished_study(tmp_path / "run")
    folder.write_analysis({**folder.analysis(), "importance": found})
    return write_report(folder).read_text()


def test_shares_are_shown_for_both_aspects_and_names_are_escaped(tmp_path):
    shares = {"lr": 0.75, "workload_args.<b>": 0.25}
    found = {"objective": shares, "stability": shares, "n_trials": {"objective": 20, "stability": 30}, "needed": 12}
    text = page(tmp_path, found)
    Outline().feed(text)
    assert "What mattered" in text and "75 %" in text
    assert "workload_args.&lt;b&gt;" in text and "workload_args.<b>" not in text


def test_too_few_trials_are_said_plainly(tmp_path):
    found = {"objective": None, "stability": None, "n_trials": {"objective": 5, "stability": 12}, "needed": 12}
    text = page(tmp_path, found)
    assert "Too few trials to say what mattered for the objective: 5 that count, of 12 needed." in text
    assert "What mattered for staying clean cannot be told: the trials do not differ in it." in text
