"""The dashboard in a real browser, over files that grow while it is open."""

import json
import os
import socket
import urllib.request

import pytest
from playwright.sync_api import expect

from stabletune import StabilityAlerts, StabilityMonitor
from stabletune.dashboard.server import serve
from stabletune.dashboard.state import read_state
from stabletune.errors import OutputFolderError, ResourceError
from stabletune.monitor.alerts.folder_sink import FolderSink
from stabletune.records import Alert
from tests.dashboard.serving import served
from tests.results.report.studies import finished_study, unfinished_study, write_trials
from tests.results.runs import make_result, make_spec


def alert(step, message="step 5: <img src=x onerror=\"document.title='caught'\">"):
    return Alert(step=step, level="spiked", previous="calm", message=message, loss=1.0)


def test_trials_that_finish_while_it_is_open_appear(open_page, tmp_path):
    folder = unfinished_study(tmp_path / "run", n_trials=3)
    with served(tmp_path / "run") as address:
        page, said, asked = open_page(address)
        expect(page.locator("#rows tbody tr")).to_have_count(3)
        assert page.locator("#progress").inner_text().startswith("3 of 24 trials")
        write_trials(folder, 8)
        expect(page.locator("#rows tbody tr")).to_have_count(8)
        expect(page.locator("#loss path.js-line").nth(2)).to_be_attached()
        assert said == []
        assert all(request.startswith(address) or request.startswith("data:") for request in asked)


def test_a_run_under_way_is_shown_with_its_curve_and_one_long_silent_is_said(open_page, tmp_path):
    folder = unfinished_study(tmp_path / "run", n_trials=2)
    run = {"purpose": "search", "trial": 2, "seed": 5, "lr": 0.01, "beta2": 0.99, "step": 120, "steps": 500}
    folder.write_running({"runs": [{**run, "points": [[60, 2.0, 0.5, None], [120, 1.0, 0.8, 3.0]]}]})
    with served(tmp_path / "run") as address:
        page, said, _ = open_page(address)
        first = page.locator("#rows tbody tr").nth(0)
        expect(first).to_contain_text("120 of 500")
        assert "trial 2, seed 5" in first.inner_text() and "0.8" in first.inner_text()
        assert "1 running" in page.locator("#progress").inner_text()
        expect(page.locator("#loss .legendtext").last).to_contain_text("trial 2, seed 5, running")
        os.utime(folder.running_path, (0, 0))
        expect(page.locator("#progress")).to_contain_text("nothing heard of them")
        folder.forget_running()
        expect(page.locator("#progress")).to_contain_text("0 running")
        assert said == []


def test_what_a_guard_decided_is_shown(open_page, tmp_path):
    FolderSink(tmp_path)
    change = {"lr_scale": 0.5, "beta2_cap": 0.9, "gradient_scale": 1.0}
    decision = {"step": 7, "mode": "act", **change, "reason": "<b>x</b>"}
    (tmp_path / "guard.jsonl").write_text(json.dumps(decision) + "\n" + '{"step": 8, "mo')
    with served(tmp_path) as address:
        page, said, _ = open_page(address)
        expect(page.locator("#decisions tbody tr")).to_have_count(1)
        assert "<b>x</b>" in page.locator("#decisions tbody tr").inner_text()
        assert said == []


def test_a_finished_search_shows_its_recommendation(open_page, tmp_path):
    finished_study(tmp_path / "run")
    with served(tmp_path / "run") as address:
        page, said, _ = open_page(address, color_scheme="dark", viewport={"width": 390, "height": 800})
        expect(page.locator("#outcome")).to_have_text("Trial 7 is recommended.")
        assert "lr 0.0123" in page.locator("#settings").inner_text()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert said == []


def test_a_watched_training_shows_its_curve_and_its_alerts_and_runs_no_html(open_page, tmp_path):
    import torch

    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.Adam([parameter], lr=0.01)
    monitor = StabilityMonitor(torch.nn.Module(), optimizer, every=5)
    sink = FolderSink(tmp_path / "watched")
    alerts = StabilityAlerts(monitor, [sink])
    with served(tmp_path / "watched") as address:
        for step in range(40):
            optimizer.zero_grad()
            loss = (parameter**2).sum() + 1.0
            loss.backward()
            optimizer.step()
            alerts.step(loss, monitor.step(loss, lambda: (parameter**2).sum() + 1.0))
            if step == 10:
                page, said, _ = open_page(address)
        sink(alert(40))
        expect(page.locator("#alerts tbody tr").nth(0)).to_be_attached()
        expect(page.locator("#sharpness_ratio .points path").nth(7)).to_be_attached()
        assert "step 40, spiked" in page.locator("#progress").inner_text()
        assert page.locator("img").count() == 0
        assert "caught" not in page.title()
        assert said == []


def drawn_heights(page):
    """The values of the loss that lie on the axis as it is drawn, and its type."""
    return page.evaluate(
        """() => {
            const chart = document.getElementById("loss"), axis = chart._fullLayout.yaxis;
            const values = chart._fullData.flatMap((trace) => [...trace.y]);
            return [axis.type, values.filter((value) => Number.isFinite(axis.c2p(axis.d2c(value))))];
        }"""
    )


TRAP = "<img src=x onerror=\"document.title='caught'\"><script src=x>"


def assert_nothing_ran(page, said, asked, address):
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 2
    assert page.title() != "caught"
    assert said == []
    assert all(request.startswith(address) or request.startswith("data:") for request in asked)


def test_markup_in_the_names_and_reasons_of_a_search_is_text(open_page, tmp_path):
    folder = unfinished_study(tmp_path / "run", n_trials=1)
    folder.write_config({**folder.config(), "name": TRAP})
    folder.record(make_result(make_spec(1), status="failed", reason=TRAP, objective=None))
    folder.write_analysis({"outcome": TRAP})
    run = {"purpose": TRAP, "trial": TRAP, "seed": TRAP, "lr": TRAP, "beta2": TRAP, "step": TRAP, "steps": TRAP}
    folder.write_running({"runs": [{**run, "points": [[1, 2.0, None, None]]}]})
    with served(tmp_path / "run") as address:
        page, said, asked = open_page(address)
        expect(page.locator("#rows tbody tr")).to_have_count(3)
        expect(page.locator("#loss .legendtext")).to_have_count(3)
        for place in ("#name", "#outcome", "#rows"):
            assert TRAP in page.locator(place).inner_text()
        assert_nothing_ran(page, said, asked, address)


def test_markup_in_a_training_s_folder_alerts_and_decisions_is_text(open_page, tmp_path):
    path = tmp_path / TRAP
    sink = FolderSink(path)
    sink.observe(10, 2.0, None)
    for name, line in (
        ("alerts.jsonl", {"step": 1, "level": TRAP, "message": TRAP}),
        ("guard.jsonl", {"step": 1, "mode": TRAP, "reason": TRAP}),
    ):
        (path / name).write_text(json.dumps(line) + "\n")
    with served(path) as address:
        page, said, asked = open_page(address)
        expect(page.locator("#loss .legendtext")).to_have_count(1)
        for place in ("#progress", "#alerts", "#decisions"):
            assert TRAP in page.locator(place).inner_text()
        assert page.locator("#name").inner_text() == path.name
        assert page.title() == f"{path.name} · stabletune"
        assert_nothing_ran(page, said, asked, address)


def test_markup_in_an_error_is_text(open_page, tmp_path):
    folder = unfinished_study(tmp_path / "run", n_trials=1)
    folder.write_running({"runs": [TRAP]})
    (tmp_path / "run").rename(tmp_path / TRAP)
    with served(tmp_path / TRAP) as address:
        page, _, asked = open_page(address)
        expect(page.locator("#progress")).to_contain_text("must list runs as a search writes them")
        assert "<img src=x" in page.locator("#progress").inner_text()
        said = []  # the browser's own word on an answer of 503
        assert_nothing_ran(page, said, asked, address)


def test_losses_at_and_below_zero_are_drawn(open_page, tmp_path):
    path = tmp_path / "measurements.jsonl"
    path.write_text("".join(json.dumps({"step": step, "loss": 5.0 - step}) + "\n" for step in range(1, 5)))
    with served(tmp_path) as address:
        page, said, _ = open_page(address)
        expect(page.locator("#loss .points path")).to_have_count(4)
        assert drawn_heights(page) == ["log", [4.0, 3.0, 2.0, 1.0]]
        with path.open("a") as file:
            file.write("".join(json.dumps({"step": step, "loss": 5.0 - step}) + "\n" for step in range(5, 9)))
        expect(page.locator("#loss .points path")).to_have_count(8)
        assert drawn_heights(page) == ["linear", [4.0, 3.0, 2.0, 1.0, 0.0, -1.0, -2.0, -3.0]]
        assert said == []


def test_spikes_that_were_alerted_are_marked_on_the_loss(open_page, tmp_path):
    sink = FolderSink(tmp_path)
    for step in (10, 20):
        sink.observe(step, 2.0, None)
    sink(alert(15))
    with served(tmp_path) as address:
        page, said, _ = open_page(address)
        expect(page.locator("#loss .legendtext").last).to_have_text("spiked")
        expect(page.locator("#loss .points path")).to_have_count(3)
        assert said == []


def test_a_last_line_that_is_half_written_is_left_out(tmp_path):
    FolderSink(tmp_path)(alert(3))
    with pytest.raises(FileExistsError, match="must not hold another training's files"):
        FolderSink(tmp_path)
    FolderSink(tmp_path, goes_on=True)
    with (tmp_path / "measurements.jsonl").open("w") as file:
        file.write('{"step": 10, "loss": 2.0, "sharpness_ratio": NaN}\n{"step": 20, "loss": 1.0}\n{"step": 30, "lo')
    state = read_state(tmp_path)
    assert state["runs"][0]["loss"] == [[10.0, 20.0], [2.0, 1.0]]
    assert state["level"] == "spiked"
    json.dumps(state, allow_nan=False)


def test_a_folder_that_vanishes_is_said_and_the_page_goes_on(open_page, tmp_path):
    folder = unfinished_study(tmp_path / "run", n_trials=2)
    with served(tmp_path / "run") as address:
        page, said, _ = open_page(address)
        expect(page.locator("#rows tbody tr")).to_have_count(2)
        (tmp_path / "run").rename(tmp_path / "away")
        expect(page.locator("#progress")).to_contain_text("holds neither")
        (tmp_path / "away").rename(tmp_path / "run")
        write_trials(folder, 4)
        expect(page.locator("#rows tbody tr")).to_have_count(4)
        assert page.locator("#progress").inner_text().startswith("4 of 24 trials")
        assert said and all("status of 503" in text for _, text in said)  # the browser's own word on failed answers


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("", "--host: must name an address"),
        ("nohost.invalid", "--host: nohost.invalid:8765 must be an address of this"),
    ],
)
def test_a_host_that_is_none_is_refused_and_nothing_is_announced(tmp_path, host, words):
    unfinished_study(tmp_path / "run", n_trials=1)
    said = []
    with pytest.raises(ResourceError, match=words):
        serve(tmp_path / "run", host=host, port=8765, announce=said.append)
    assert said == []


def test_the_loopback_of_ipv6_answers_under_its_own_name(tmp_path):
    unfinished_study(tmp_path / "run", n_trials=1)
    with served(tmp_path / "run") as address:
        request = urllib.request.Request(address, headers={"Host": "[::1]:8765"})
        assert urllib.request.urlopen(request).status == 200


def test_a_foreign_folder_and_a_port_in_use_are_clear_errors(tmp_path):
    with pytest.raises(OutputFolderError, match="must be the output folder of a search, or the folder of a FolderSink"):
        serve(tmp_path, host="127.0.0.1", port=8765)
    unfinished_study(tmp_path / "run", n_trials=1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            ResourceError, match=f"--port: 127.0.0.1:{port} must be free, but got address already in use"
        ):
            serve(tmp_path / "run", host="127.0.0.1", port=port)
