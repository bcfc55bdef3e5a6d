"""Every command and every program of the site is run, in the order of its page, in an empty folder."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from stabletune.config import load_config

ROOT = Path(__file__).resolve().parents[1]
SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
BLOCK = re.compile(r"^```(\w+)(?: (run|title=\"([^\"]+)\"))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = sorted(path.name for path in (ROOT / "docs").glob("*.md") if BLOCK.search(path.read_text(encoding="utf-8")))
EXPECTED = re.compile(r"# exits with (\d+)$")


def blocks_of(page):
    return BLOCK.findall((ROOT / "docs" / page).read_text(encoding="utf-8"))


def run(arguments, folder):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.ray
@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_says_to_do_works(page, tmp_path):
    blocks = blocks_of(page)
    for _, _, title, content in blocks:
        if title:
            (tmp_path / title).write_text(content)
    for language, kind, _, content in blocks:
        if language == "sh":
            for line in content.splitlines():
                expected = EXPECTED.search(line)
                done = run(shlex.split(line, comments=True), tmp_path)
                assert done.returncode == (int(expected[1]) if expected else 0), f"{line}\n{done.stderr}"
        elif kind == "run":
            done = run([sys.executable, "-c", content], tmp_path)
            assert done.returncode == 0, done.stderr


def test_pages_with_commands_are_found():
    assert {"index.md", "own_model.md", "troubleshooting.md", "watch.md"} <= set(PAGES)


def test_every_page_is_in_the_site():
    def pages(entries):
        for entry in entries:
            (value,) = entry.values()
            yield from pages(value) if isinstance(value, list) else [value]

    assert set(pages(SITE["nav"])) == {path.name for path in (ROOT / "docs").glob("*.md")}


def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "StabilityGuard" in (tmp_path / "reference" / "index.html").read_text(encoding="utf-8")


def test_every_key_of_a_config_is_explained(tmp_path):
    def keys(data, above=""):
        for key, value in data.items():
            if isinstance(value, dict) and value:
                yield from keys(value, f"{above}{key}.")
            else:
                yield f"{above}{key}"

    (tmp_path / "config.yaml").write_text("name: x\nworkload: quadratic\nsearch_space: adam_lr_beta2\n")
    config = load_config(tmp_path / "config.yaml").resolved()
    text = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
    internal = {"workload_sha256"}
    missing = [key for key in keys(config) if not key.startswith("search_space.") and f"`{key}`" not in text]
    assert set(missing) <= internal
