"""A watched training's files, gone on with after a kill or a disk that failed."""

import json

import pytest

from stabletune.errors import OutputFolderError
from stabletune.monitor.alerts.folder_sink import FolderSink
from stabletune.records import ALERTS_FILE, MEASUREMENTS_FILE, Alert


def alert(step, level="unstable"):
    return Alert(step=step, level=level, previous="calm", message=f"step {step}: odd", loss=3.0)


def lines_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def watched(tmp_path):
    sink = FolderSink(tmp_path)
    sink(alert(7))
    for step in (10, 20):
        sink.observe(step, 0.5, None)
    return tmp_path


def test_lines_that_a_kill_cut_off_are_removed_before_the_next_are_added(watched):
    for name in (ALERTS_FILE, MEASUREMENTS_FILE):
        with (watched / name).open("ab") as file:
            file.write('{"step": 25, "message": "é'.encode()[:-1])
    sink = FolderSink(watched, goes_on=True)
    sink(alert(31, "spiked"))
    sink.observe(40, 0.25, None)
    assert [line["step"] for line in lines_of(watched / MEASUREMENTS_FILE)] == [10, 20, 40]
    assert [(line["step"], line["level"]) for line in lines_of(watched / ALERTS_FILE)] == [
        (7, "unstable"),
        (31, "spiked"),
        (40, "calm"),
    ]


@pytest.mark.parametrize(
    "damaged", [b"not json", b"\x00" * 40, b"[7]", b'{"step": 9}', b'{"level": "odd"}', b'{"level": ["calm"]}', b"["]
)
def test_a_last_alert_that_is_damaged_is_named_with_its_line_before_the_training_goes_on(watched, damaged):
    with (watched / ALERTS_FILE).open("ab") as file:
        file.write(damaged + b"\n")
    with pytest.raises(OutputFolderError, match=r"alerts\.jsonl:2: the last line must be an alert.*remove that line"):
        FolderSink(watched, goes_on=True)


def test_a_folder_without_alerts_begins_calm(tmp_path):
    FolderSink(tmp_path, goes_on=True).observe(10, 0.5, None)
    assert not (tmp_path / ALERTS_FILE).exists()
