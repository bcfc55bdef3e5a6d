"""Each sink against the real thing: a file, logging, a local HTTP server, a Prometheus scrape."""

import json
import logging
import socket
import subprocess
import sys
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from stabletune.monitor.alerts.jsonl_sink import JsonlSink
from stabletune.monitor.alerts.log_sink import LogSink
from stabletune.monitor.alerts.prometheus_sink import PrometheusSink
from stabletune.monitor.alerts.webhook_sink import MOST_WAITING, WebhookSink
from stabletune.records import Alert, Diagnosis, Measurement

WHY = Diagnosis(step=7, cause="bad batch", evidence="It stood out.", remedy="Look at it.")


def alert(level="spiked", step=7, loss=3.0):
    return Alert(step=step, level=level, previous="calm", message=f"step {step}: <b>odd</b>", loss=loss, diagnosis=WHY)


class Receiver(ThreadingHTTPServer):
    """Keeps what is posted; ``status`` is its answer, and it answers only once ``may_answer`` is set."""

    def __init__(self, status=200):
        super().__init__(("127.0.0.1", 0), Handler)
        self.status, self.received, self.may_answer = status, [], threading.Event()
        self.may_answer.set()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/hook?token=secret"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        self.server.received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.server.may_answer.wait()
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture
def receiver():
    server = Receiver()
    yield server
    server.may_answer.set()
    server.shutdown()
    server.server_close()


def test_a_webhook_gets_every_alert_in_order_with_its_fields_and_a_text(receiver):
    sink = WebhookSink(receiver.url, name="pretrain")
    for step in range(1, 6):
        sink(alert(step=step))
    sink.close()
    assert [content["step"] for content in receiver.received] == [1, 2, 3, 4, 5]
    assert receiver.received[0]["text"] == "pretrain: spiked: step 1: <b>odd</b>"
    assert receiver.received[0]["diagnosis"]["remedy"] == "Look at it."


def test_a_loss_that_is_not_a_number_is_posted_as_null(receiver):
    sink = WebhookSink(receiver.url)
    sink(alert(loss=float("nan")))
    sink.close()
    assert receiver.received[0]["loss"] is None


def test_a_server_that_fails_is_logged_without_the_secret_and_later_alerts_are_tried(receiver, caplog):
    receiver.status = 500
    sink = WebhookSink(receiver.url)
    sink(alert(step=1))
    sink(alert(step=2))
    sink.close()
    assert len(receiver.received) == 2
    assert caplog.text.count("posting an alert to 127.0.0.1 failed") == 2
    assert "secret" not in caplog.text


def test_a_dead_server_is_logged(caplog):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    sink = WebhookSink(f"http://127.0.0.1:{port}/")
    sink(alert())
    sink.close()
    assert "posting an alert to 127.0.0.1 failed" in caplog.text


def test_a_server_that_hangs_holds_nobody_up_and_drops_what_is_too_much(receiver, caplog):
    receiver.may_answer.clear()
    sink = WebhookSink(receiver.url, timeout=60.0)
    for step in range(MOST_WAITING + 10):
        sink(alert(step=step))  # would wait a minute each if the post were made here
    assert "this one is dropped" in caplog.text
    receiver.may_answer.set()


def test_a_time_out_ends_a_post(receiver, caplog):
    receiver.may_answer.clear()
    sink = WebhookSink(receiver.url, timeout=0.05)
    sink(alert())
    sink.close()
    receiver.may_answer.set()
    assert "failed: TimeoutError" in caplog.text


def test_a_webhook_that_was_closed_takes_the_alerts_of_the_next_training(receiver):
    sink = WebhookSink(receiver.url)
    for step in (1, 2):
        sink(alert(step=step))
        sink.close()
    sink.close()
    assert [content["step"] for content in receiver.received] == [1, 2]


DIES = """
import sys
from stabletune.monitor.alerts.webhook_sink import WebhookSink
from stabletune.records import Alert

sink = WebhookSink(sys.argv[1], timeout=float(sys.argv[2]))
for step in (1, 2, 3):
    sink(Alert(step=step, level="spiked", previous="calm", message="odd", loss=1.0))
raise RuntimeError("out of memory")
"""


def test_alerts_are_posted_before_a_training_that_raises_ends(receiver):
    ended = subprocess.run(
        [sys.executable, "-c", DIES, receiver.url, "30"], capture_output=True, text=True, timeout=100
    )
    assert (ended.returncode, "out of memory" in ended.stderr) == (1, True)
    assert [content["step"] for content in receiver.received] == [1, 2, 3]


def test_a_server_that_hangs_does_not_keep_a_process_from_ending(receiver):
    receiver.may_answer.clear()
    ended = subprocess.run([sys.executable, "-c", DIES, receiver.url, "0.2"], capture_output=True, timeout=100)
    assert ended.returncode == 1


def test_alerts_after_a_close_that_timed_out_are_posted_by_a_thread_of_their_own(receiver, caplog):
    receiver.may_answer.clear()
    sink = WebhookSink(receiver.url, timeout=0.1)
    sink(alert(step=1))
    sink(alert(step=2))
    slow = WebhookSink(receiver.url, timeout=0.3)
    slow.close()
    sink.close()
    receiver.may_answer.set()
    sink(alert(step=3))
    sink.close()
    assert [content["step"] for content in receiver.received if content["step"] == 3] == [3]


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/", "//host/x", "https://", "x"])
def test_a_url_that_is_none_is_refused_at_once(url):
    with pytest.raises(ValueError, match="url: must begin with http:// or https:// and name a host"):
        WebhookSink(url)


def test_lines_of_a_file_are_json_and_are_added(tmp_path):
    path = tmp_path / "new" / "alerts.jsonl"
    JsonlSink(path)(alert(step=1))
    JsonlSink(path)(alert(step=2, loss=float("inf")))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["step"], line["loss"], line["version"]) for line in lines] == [(1, 3.0, 1), (2, None, 1)]


def test_levels_are_logged_by_how_much_they_matter(caplog):
    caplog.set_level(logging.INFO, logger="stabletune")
    for level in ("calm", "approaching", "unstable", "spiked"):
        LogSink()(alert(level))
    assert [record.levelname for record in caplog.records] == ["INFO", "INFO", "WARNING", "ERROR"]
    assert caplog.records[2].getMessage() == "unstable: step 7: <b>odd</b>"


def scraped(sink):
    with urllib.request.urlopen(f"http://127.0.0.1:{sink.port}/metrics") as answer:
        return answer.read().decode()


@pytest.mark.parametrize("labels", [{}, {"run": "a"}])
def test_prometheus_finds_the_newest_signals_the_level_and_the_counts(labels):
    sink = PrometheusSink(0, labels=labels)
    sink.observe(3, 0.25, Measurement(step=3, loss=0.25, lr=1e-3, sharpness_ratio=0.5))
    sink.observe(4, 0.125, None)
    sink(alert("unstable"))
    sink(alert("spiked"))
    text = scraped(sink)
    sink.close()
    own = '{run="a"}' if labels else ""
    for name, value in (("step", 4.0), ("loss", 0.125), ("sharpness_ratio", 0.5), ("level", 3.0)):
        assert f"stabletune_{name}{own} {value}\n" in text
    both = 'level="spiked",run="a"' if labels else 'level="spiked"'
    assert f"stabletune_alerts_total{{{both}}} 1.0\n" in text


def test_a_port_in_use_is_an_error_at_once():
    first = PrometheusSink(0)
    with pytest.raises(OSError, match="in use"):
        PrometheusSink(first.port)
    first.close()


def test_metrics_that_were_closed_are_served_again_at_the_next_step():
    sink = PrometheusSink(0)
    port = sink.port
    sink.close()
    sink.observe(7, 0.5, None)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        assert "stabletune_step 7.0" in answer.read().decode()
    sink.close()


def test_a_label_that_the_counts_have_themselves_is_refused():
    with pytest.raises(ValueError, match="labels: must not have level"):
        PrometheusSink(0, labels={"level": "x"})
