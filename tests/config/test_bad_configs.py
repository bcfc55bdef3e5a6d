"""Every bad config ends the command line with exit code 2, the key at fault, the rule and what to do about it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from stabletune.cli import app
from tests.config.bad_configs import BAD, LAUGHS, Bad, lines

ROWS = [
    pytest.param(bad, id=f"{section}-{index}: {ascii(bad.written)[2:42]}")
    for section, table in BAD.items()
    for index, bad in enumerate(table)
]
A_REMEDY = re.compile(
    r"but (got|it has|it failed|.+ holds|an alias|got: ).*[^.]\. ?.+|Did you mean|Known here|Keywords:"
)
ITS_OWN = "trial 0, the baseline, must run"


def put(bad: Bad, folder: Path) -> Path:
    for name, content in bad.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.mkdir()
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
    (folder / "config.yaml").write_bytes(bad.content())
    return folder / "config.yaml"


def search(path: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["search", str(path), "--executor", "inline", "--quiet", *arguments])


def test_the_table_is_large_and_no_row_is_there_twice() -> None:
    rows = [row for table in BAD.values() for row in table]
    assert len(rows) >= 200
    assert len({(row.written, row.key, row.said, row.arguments, str(row.files)) for row in rows}) == len(rows)


def test_the_config_that_the_rows_spoil_runs(tmp_path: Path) -> None:
    done = search(put(Bad("", "", ""), tmp_path), "--output", str(tmp_path / "out"))
    assert done.exit_code in (0, 3), done.stderr


@pytest.mark.parametrize("bad", ROWS)
def test_a_bad_config_is_exit_code_2_with_its_key_and_rule(
    bad: Bad, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(bad, tmp_path)
    monkeypatch.chdir(tmp_path)
    done = search(path, *bad.arguments)
    assert (done.exit_code, done.stdout) == (2, ""), (done.exception, done.stderr)
    message = done.stderr.rstrip("\n").rpartition("\n")[2]
    assert message == done.stderr.rstrip("\n") or ITS_OWN in message, "one mistake, one line"
    assert bad.key in message
    assert bad.said in message
    assert A_REMEDY.search(message)
    assert len(message) < 1000
    assert not (tmp_path / "runs" / "study").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + lines(),
        lines().replace(b"\n", b"\r\n"),
        lines("---").removesuffix(b"---\n"),
        b"---\n" + lines("..."),
        lines("baseline: &now {lr: 1e-3}", "workload_args: {start: 2}"),
        lines("schedule: &s {name: cosine}", "objective: &o {source: train}", "signals: {<<: {every: 10}}"),
        lines("seed: 0x1F", "resources: {cpus_per_trial: 0.5}", "baseline: {lr: 1E-3, eps: 1.e-8}"),
    ],
    ids=["byte order mark", "CRLF", "no end", "document marks", "anchor", "merge key", "numbers"],
)
def test_what_yaml_allows_besides_is_read(content: bytes, tmp_path: Path) -> None:
    done = search(put(Bad(content, "", ""), tmp_path), "--output", str(tmp_path / "out"))
    assert done.exit_code in (0, 3), done.stderr


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("absent.yaml", "but got: No such file or directory. Check the path."),
        (".", "but got: Is a directory. Check the path."),
        ("loop.yaml", "but got: Too many levels of symbolic links. Check the path."),
        ("x" * 300, "but got: File name too long. Check the path."),
        ("/proc/self/mem", "but got: Input/output error. Check the path."),
    ],
)
def test_a_config_that_cannot_be_read_is_named(name: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    done = search(tmp_path / name)
    assert done.exit_code == 2
    assert f"{tmp_path / name}: must be a readable text file, {said}" in done.stderr


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("config.yaml", "config.yaml: must be a readable text file, but got: Permission denied."),
        ("mine.yaml", "mine.yaml: must be a readable text file, but got: Permission denied."),
        ("mine.py", "workload: must name a file that can be read ("),
        ("out", "must be a place to read or write, but got permission denied."),
    ],
)
@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read and write everything")
def test_what_may_not_be_read_or_written_is_named(name: str, said: str, tmp_path: Path) -> None:
    files = {"mine.yaml": "lr: {low: 1, high: 2}", "mine.py": "def build(seed, device): ...", "out": None}
    path = put(Bad("search_space: mine.yaml\nworkload: mine.py:build\noutput: OUT", "", "", files), tmp_path)
    path.write_text(path.read_text().replace("OUT", str(tmp_path / "out" / "run")))
    (tmp_path / name).chmod(0o400 if name == "out" else 0)
    done = search(path)
    (tmp_path / name).chmod(0o700)
    assert done.exit_code == 2, done.exception
    assert name in done.stderr and said in done.stderr


@pytest.mark.parametrize("written", ["seed: 0777", LAUGHS, "storage: redis://host"])
def test_a_process_says_the_same(written: str, tmp_path: Path) -> None:
    path = put(Bad(written, "", ""), tmp_path)
    here = search(path)
    command = [sys.executable, "-m", "stabletune.cli", "search", str(path), "--executor", "inline", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert (done.returncode, done.stdout, done.stderr) == (2, "", here.stderr)


@pytest.mark.ray
@pytest.mark.parametrize("key", ["cpus_per_trial", "gpus_per_trial", "memory_gib_per_trial"])
def test_resources_that_no_machine_has_are_refused_before_any_trial(key: str, tmp_path: Path) -> None:
    path = put(Bad(f"resources: {{{key}: 1000000}}", "", ""), tmp_path)
    command = [sys.executable, "-m", "stabletune.cli", "search", str(path), "--output", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 2
    assert re.search(
        rf"resources\.{key}: must be at most the [\d.e+]+ .+ there are, but got 1e\+06\. Ask for", done.stderr
    )
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
