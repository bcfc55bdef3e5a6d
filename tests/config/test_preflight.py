from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from stabletune.config.preflight import check_workload, find_workload, list_workloads
from stabletune.errors import ConfigError
from stabletune.records import WorkloadReference


def problems_of(folder: Path, source: str, *arguments: str, function: str = "build") -> list[str]:
    (folder / "work.py").write_text(source, encoding="utf-8")
    return check_workload(find_workload(f"work.py:{function}", folder), arguments)


def test_a_file_is_made_absolute_and_hashed(tmp_path: Path) -> None:
    (tmp_path / "work.py").write_text("def build(seed, device): ...\n")
    found = find_workload("work.py:build", tmp_path)
    assert found.reference == WorkloadReference("build", path=str(tmp_path / "work.py"))
    assert found.name == f"{tmp_path / 'work.py'}:build"
    assert found.sha256 == hashlib.sha256((tmp_path / "work.py").read_bytes()).hexdigest()


def test_a_module_is_found_without_importing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "some_package_of_mine" / "inner"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").write_text("raise SystemExit('imported')\n")
    (package / "tasks.py").write_text("raise SystemExit('imported')\ndef make(seed, device): ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = find_workload("some_package_of_mine.inner.tasks:make", tmp_path)
    assert found.reference == WorkloadReference("make", module="some_package_of_mine.inner.tasks")
    assert found.source == package / "tasks.py"
    assert check_workload(found, []) == []
    assert "takes" not in check_workload(found, ["width"])[0]


def test_every_built_in_workload_is_found_by_its_name_and_passes(tmp_path: Path) -> None:
    assert "quadratic" in list_workloads()
    for name, line in list_workloads().items():
        found = find_workload(name, tmp_path)
        assert found.reference == WorkloadReference(name)
        assert check_workload(found, []) == []
        assert line.endswith(".")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("absent.py:build", "must name an existing file"),
        ("null\x00byte.py:build", "must name an existing file"),
        ("x" * 5000 + ".py:build", "must name an existing file"),
        ("folder/absent.py:build", "must name an existing file"),
        ("work.py", "Name its function: work.py:build."),
        ("work.py:", "must end in :FUNCTION"),
        ("work.py:a.b", "must end in :FUNCTION"),
        ("quadratik", "Built in: "),
        ("no_such_package_here.tasks:build", "must name an importable module (no_such_package_here.tasks is none)"),
        ("json.no_such_module:build", "must name an importable module"),
        ("json.decoder.deeper:build", "must name an importable module"),
        ("not-a-module:build", "must name an importable module"),
    ],
)
def test_a_workload_that_cannot_be_found_says_what_to_write(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "work.py").write_text("def build(seed, device): ...\n")
    with pytest.raises(ConfigError) as caught:
        find_workload(name, tmp_path)
    assert said in str(caught.value)
    assert f"but got {name!r}" in str(caught.value)


def test_source_that_does_not_parse_names_its_line(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, "x = 1\ndef build(:\n")
    assert "must be valid Python, but got: " in problem
    assert "work.py:2)" in problem


def test_a_function_that_is_not_there_lists_those_that_are(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, "def other(seed, device): ...\nclass C:\n    def build(self): ...\n")
    assert "must name a function of work.py, but got 'build'. Defined there: other." in problem


@pytest.mark.parametrize(
    "source",
    [
        "build = lambda seed, device: 1\n",
        "a, build = 1, 2\n",
        "build: object = print\n",
        "from elsewhere import build\n",
        "from elsewhere import make as build\n",
        "from elsewhere import *\n",
        "if True:\n    def build(seed, device): ...\n",
        "try:\n    import torch\nexcept ImportError:\n    build = None\n",
        "with open('x'):\n    def build(seed, device): ...\n",
        "@decorated\ndef build(): ...\n",
        "class build: ...\n",
    ],
)
def test_any_way_of_defining_the_name_at_top_level_counts(tmp_path: Path, source: str) -> None:
    assert problems_of(tmp_path, source) == []


@pytest.mark.parametrize(
    ("signature", "arguments"),
    [
        ("seed, device", []),
        ("seed, device, *, width=64", ["width"]),
        ("seed, device, width", ["width"]),
        ("seed, device, /, width=3", ["width"]),
        ("seed, device, **rest", ["width", "depth"]),
        ("*args, **rest", ["width"]),
        ("seed, device, width=1, *, depth", ["depth"]),
        ("trial", []),
        ("trial, *, width=64", ["width"]),
        ("trial, seed=0", ["seed"]),
        ("s, d, *, width=64", ["width"]),
    ],
)
def test_signatures_that_take_the_arguments_pass(tmp_path: Path, signature: str, arguments: list[str]) -> None:
    assert problems_of(tmp_path, f"def build({signature}): ...\n", *arguments) == []


@pytest.mark.parametrize(
    ("signature", "arguments", "said"),
    [
        (
            "seed, device, *, width=64",
            ["depth"],
            "must take workload_args.depth, but got build(seed, device, *, width=64)",
        ),
        ("seed, device", ["seed"], "must take workload_args.seed"),
        ("seed, device, **rest", ["seed"], "must take workload_args.seed"),
        ("trial", ["width"], "must take workload_args.width, but got build(trial). Keywords: none."),
        ("seed, device, width", [], "got none for width of build(seed, device, width). Add workload_args.width."),
        ("seed, device, *, width", [], "got none for width"),
        ("trial, width", [], "got none for width"),
        ("", [], "must take seed and device as its first arguments, but got build()."),
        ("seed", [], "must take seed and device as its first arguments"),
        ("*, seed, device", [], "must take seed and device as its first arguments"),
    ],
)
def test_signatures_that_cannot_be_called_are_refused(
    tmp_path: Path, signature: str, arguments: list[str], said: str
) -> None:
    (problem,) = problems_of(tmp_path, f"def build({signature}): ...\n", *arguments)
    assert said in problem


def test_the_last_definition_decides(tmp_path: Path) -> None:
    assert problems_of(tmp_path, "def build(): ...\ndef build(seed, device): ...\n") == []
