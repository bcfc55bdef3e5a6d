"""What `stabletune submit` refuses before anything is sent, in a line and with the exit code of `search`."""

import os
import socket
import subprocess
import sys
import sysconfig
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stabletune.cli import app
from stabletune.results.store import RunFolder

NOWHERE = "http://127.0.0.1:9"


def submit(config, *arguments, address=NOWHERE):
    return CliRunner().invoke(app, ["submit", str(config), "--address", address, *map(str, arguments)])


def test_a_mistake_in_the_config_is_that_of_search(write_config):
    config = write_config(("workload: quadratic", "workload: quadratics"))
    found, expected = submit(config), CliRunner().invoke(app, ["search", str(config)])
    assert (found.exit_code, found.stderr) == (expected.exit_code, expected.stderr) == (2, expected.stderr)
    assert "must be FILE.py:FUNCTION" in found.stderr


def test_a_folder_that_holds_a_search_is_refused_as_by_search(write_config, tmp_path):
    config = write_config()
    searched = CliRunner().invoke(
        app, ["search", str(config), "--output", str(tmp_path / "out"), "--executor", "inline"]
    )
    assert searched.exit_code == 0
    found, expected = submit(config, "--output", tmp_path / "out"), CliRunner().invoke(
        app, ["search", str(config), "--output", str(tmp_path / "out")]
    )  # fmt: skip
    assert (found.exit_code, found.stderr) == (2, expected.stderr)


def test_an_address_where_nothing_answers_is_refused_and_leaves_no_folder(write_config, tmp_path):
    with socket.socket() as taken:  # bound, and not listening
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        found = submit(write_config(), "--output", tmp_path / "out", address=address)
    assert found.exit_code == 2
    assert f"--address: must be a Ray head's dashboard that answers, but '{address}' gave: Failed to" in found.stderr
    assert not (tmp_path / "out").exists()


def test_an_address_holds_for_its_submission_alone(write_config):
    before = {name: os.environ.get(name) for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")}
    assert submit(write_config()).exit_code == 2
    assert {name: os.environ.get(name) for name in before} == before


@pytest.mark.parametrize(
    "address",
    [
        *("auto", "10.0.0.1:8265", "ray://10.0.0.1:10001"),
        *("http://", "http://[::1", "http://head:8265/#/jobs", "http://head:8265/?view=jobs"),
    ],
)
def test_an_address_must_be_a_url(write_config, address):
    found = submit(write_config(), address=address)
    assert found.exit_code == 2
    assert f"--address: must be the URL of a Ray head's dashboard, but got {address!r}." in found.stderr


class Other(BaseHTTPRequestHandler):
    """A server that is no Ray head: it answers all with ``server.answer``, a status and a text."""

    def do_GET(self):
        status, text = self.server.answer
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *words):
        pass


@pytest.fixture
def other():
    with ThreadingHTTPServer(("127.0.0.1", 0), Other) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "answer",
    [
        (200, "<html>Welcome to nginx!</html>"),
        (200, "{}"),
        (200, "[]"),
        (200, '{"ray_version": "new"}'),
        (404, "not found"),
        (500, "on fire"),
        (401, "Unauthorized: Missing authentication token"),
        (403, "Forbidden: Invalid authentication token"),
    ],
)
def test_an_address_where_something_else_answers_is_refused_in_a_line(write_config, tmp_path, other, answer):
    other.answer = answer
    address = f"http://127.0.0.1:{other.server_port}"
    found = submit(write_config(), "--output", tmp_path / "out", address=address)
    assert (found.exit_code, found.stderr.count("\n")) == (2, 1)
    does = "lets you in" if answer[0] in (401, 403) else "answers"
    assert f"--address: must be a Ray head's dashboard that {does}, but '{address}' gave: " in found.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("job_id", ["", ".", "?x", "../..", "02000000"])
def test_an_id_that_submit_gives_to_no_job_is_refused(write_config, job_id):
    found = submit(write_config(), "--job", job_id)
    assert found.exit_code == 2
    assert f"--job: must have an id like stabletune-NAME-1a2b3c4d, but got {job_id!r}." in found.stderr


def test_a_folder_in_which_another_process_works_is_refused(write_config, tmp_path):
    """Two that submit into one folder at once would each forget the other's job."""
    (tmp_path / "out").mkdir()
    with RunFolder(tmp_path / "out").claimed():
        found = submit(write_config(), "--output", tmp_path / "out")
    assert found.exit_code == 2
    assert f"{tmp_path / 'out'}: must be used by one process at a time, but another one works there." in found.stderr


@pytest.mark.parametrize("address", ["http://me:hunter2@head:8265", "me:hunter2@head:8265", "https://hunter2@head"])
def test_an_address_with_a_password_is_refused_without_showing_it(write_config, tmp_path, address):
    found = submit(write_config(), "--output", tmp_path / "out", address=address)
    assert found.exit_code == 2
    assert "--address: must be a URL without a user's name or password, but got one with @." in found.stderr
    assert "hunter2" not in found.output
    assert not (tmp_path / "out").exists()


def test_a_study_in_a_file_of_this_machine_is_refused(write_config):
    found = submit(write_config(), "--set", "storage=sqlite:///study.db")
    assert found.exit_code == 2
    assert (
        "storage: must be null or a database that the cluster reaches too, but got 'sqlite:///study.db'" in found.stderr
    )


def test_a_note_that_cannot_be_read_is_named(write_config, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "submission.json").write_text("{}")
    found = submit(write_config(), "--output", tmp_path / "out", "--resume")
    assert found.exit_code == 2
    assert "submission.json: must name a job as `stabletune submit` wrote it, but cannot be read" in found.stderr


def test_without_the_extra_one_line_says_what_to_install(write_config, tmp_path):
    """With an interpreter that has every package of this one but aiohttp."""
    packages = tmp_path / "packages"
    packages.mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if not path.name.startswith("aiohttp"):
            (packages / path.name).symlink_to(path)
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{packages}"}
    command = [sys.executable, "-S", "-m", "stabletune.cli", "submit", str(write_config()), "--address", NOWHERE]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "submit: aiohttp must be installed, but is not. pip install 'stabletune[cluster]'\n"
