"""A file that grows is read once, however often it is asked for."""

import json

from stabletune.dashboard.growing_file import GrowingFile
from stabletune.dashboard.state import StateReader


class Numbers:
    def __init__(self):
        self.found = []

    def add(self, line):
        self.found.append(int(line["n"]))


class Growing:
    def __init__(self, path):
        self._file = GrowingFile(path, Numbers)

    def numbers(self):
        return self._file.read().found


def write(path, *texts, mode="a"):
    with path.open(mode) as file:
        file.write("".join(texts))


def test_each_line_is_read_once(tmp_path):
    path = tmp_path / "f.jsonl"
    file = Growing(path)
    assert file.numbers() == []
    write(path, '{"n": 1}\n', '{"n": 2}\n')
    assert file.numbers() == [1, 2]
    write(path, '{"n": 3}\n')
    assert file.numbers() == [1, 2, 3] == file.numbers()


def test_a_line_that_is_half_written_comes_when_it_is_whole(tmp_path):
    path = tmp_path / "f.jsonl"
    file = Growing(path)
    write(path, '{"n": 1}\n{"n":')
    assert file.numbers() == [1]
    write(path, " 2}\n")
    assert file.numbers() == [1, 2]


def test_lines_of_another_kind_are_left_out(tmp_path):
    path = tmp_path / "f.jsonl"
    file = Growing(path)
    path.write_bytes(b'{"m": 1}\n[1]\n\xff\xfe\n{"n": [1]}\n' + b"[" * 100_000 + b'\n{"n": 7}\n{"n": 1e999}\n')
    assert file.numbers() == [7]


def test_a_file_that_was_replaced_or_cut_is_read_anew(tmp_path):
    path = tmp_path / "f.jsonl"
    file = Growing(path)
    write(path, '{"n": 1}\n{"n": 2}\n')
    assert file.numbers() == [1, 2]
    write(path, '{"n": 3}\n', mode="w")
    assert file.numbers() == [3]
    path.unlink()
    assert file.numbers() == []


def test_a_watched_training_with_lines_of_others_in_it_is_shown(tmp_path):
    lines = [{"loss": 1}, {"step": 10, "loss": 2.0}, {"step": 20, "loss": [1]}, {"step": 30, "loss": float("nan")}]
    write(tmp_path / "measurements.jsonl", *(json.dumps(line) + "\n" for line in lines))
    write(tmp_path / "alerts.jsonl", '{"step": 5}\n', '{"step": 6, "level": "spiked", "message": 3}\n')
    state = StateReader(tmp_path).read()
    assert (state["step"], state["level"]) == (30, "spiked")
    assert state["runs"][0]["loss"][0][0] == 10.0
    json.dumps(state, allow_nan=False)
