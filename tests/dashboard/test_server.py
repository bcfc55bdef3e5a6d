"""What the server answers, byte by byte: its five addresses, under its own name, to nobody who asks for more."""

import json
import socket
import urllib.parse
import urllib.request

import pytest

from stabletune.monitor.alerts.folder_sink import FolderSink
from tests.dashboard.serving import served
from tests.results.report.studies import finished_study, unfinished_study

SECRET = "what-lies-outside"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    finished_study(folder / "run")
    (folder / "secret.yaml").write_text(SECRET)
    with served(folder / "run") as address:
        yield address


def answer_to(address, target, *, method="GET", host=None, version="HTTP/1.1", headers=b""):
    """Send one request as it stands and return status, head and body; the status is 0 if the server hung up."""
    where = urllib.parse.urlsplit(address)
    named = f"Host: {where.netloc if host is None else host}\r\n".encode() if host != "" else b""
    target = target if isinstance(target, bytes) else target.encode()
    request = method.encode() + b" " + target + b" " + version.encode() + b"\r\n" + named + headers
    with socket.create_connection((where.hostname, where.port), timeout=20) as connection:
        found = b""
        try:
            connection.sendall(request + b"Connection: close\r\n\r\n")
            while block := connection.recv(65536):
                found += block
        except ConnectionError:  # it hung up before all was sent
            pass
    head, _, body = found.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]) if head else 0, head.lower(), body


@pytest.mark.parametrize("target", ["/", "/page.css", "/page.js", "/plotly.js", "/state"])
def test_its_own_addresses_are_answered_with_a_policy_and_to_no_other_site(address, target):
    status, head, _ = answer_to(address, target, headers=b"Origin: https://evil.example\r\n")
    assert status == 200
    assert b"x-content-type-options: nosniff" in head
    assert b"cross-origin-resource-policy: same-origin" in head
    assert b"default-src 'none'" in head and b"frame-ancestors 'none'" in head
    assert b"access-control-allow-origin" not in head


def test_head_answers_without_a_body(address):
    status, _, body = answer_to(address, "/state", method="HEAD")
    assert (status, body) == (200, b"")


@pytest.mark.parametrize(
    "target",
    [
        "/../secret.yaml",
        "/..%2fsecret.yaml",
        "/%2e%2e/secret.yaml",
        "/%2e%2e%2fsecret.yaml",
        "/%252e%252e%252fsecret.yaml",
        "/..\\secret.yaml",
        "/..%5csecret.yaml",
        "/....//secret.yaml",
        "/%c0%ae%c0%ae/secret.yaml",
        "/state/../../secret.yaml",
        "/page.js/../../secret.yaml",
        "/page.js%00.yaml",
        "/state%00",
        "/%00",
        "//etc/passwd",
        "/etc/passwd",
        "/%2fetc%2fpasswd",
        "/config.yaml",
        "/recommended.yaml",
        "/trials/0000/losses.npy",
        "/state?file=../secret.yaml/../x",
        "file:///etc/passwd",
        "http://evil.example/config.yaml",
    ],
)
def test_no_address_leads_to_another_file(address, target):
    status, _, body = answer_to(address, target)
    assert status == 200 if target.startswith("/state?") else status in (400, 404)
    assert SECRET.encode() not in body and b"root:" not in body and b"search_space" not in body


@pytest.mark.parametrize("target", [b"/\x00", b"/state\x00", b"/a b", b"/\xff\xfe", b"", b"/x\r\nHost: evil.example"])
def test_a_request_that_is_none_is_refused_and_the_next_is_answered(address, target):
    assert answer_to(address, target)[0] in (0, 400, 404)
    assert answer_to(address, "/state")[0] == 200


@pytest.mark.parametrize("size", [10_000, 100_000, 5_000_000])
def test_a_huge_address_is_refused_and_the_next_is_answered(address, size):
    assert answer_to(address, "/" + "a" * size)[0] in (0, 400, 404, 414)
    assert answer_to(address, "/state")[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND"])
@pytest.mark.parametrize("target", ["/", "/state"])
def test_only_reading_is_allowed(address, method, target):
    assert answer_to(address, target, method=method)[0] == 405


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8765",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "evil.example#127.0.0.1",
        "127.0.0.2",
        "0.0.0.0",
        "2130706433",
        "[::2]:80",
        "*",
        "",
    ],
)
@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
def test_it_answers_under_no_other_name(address, host, version):
    status, _, body = answer_to(address, "/state", host=host, version=version)
    assert status == 400
    assert b"runs" not in body


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:1", "localhost", "localhost:8765", "[::1]", "[::1]:8765"])
def test_it_answers_under_the_names_of_this_machine(address, host):
    assert answer_to(address, "/state", host=host)[0] == 200


def state_of(folder):
    with served(folder) as address:
        status, _, body = answer_to(address, "/state")
    return status, json.loads(body)


@pytest.mark.parametrize(
    "name", ["config.yaml", "trials.csv", "recommended.yaml", "analysis.json", "running.json", "trials"]
)
def test_a_link_out_of_a_search_s_folder_is_not_followed(tmp_path, name):
    folder = finished_study(tmp_path / "run")
    folder.write_running({"runs": []})
    (tmp_path / "run" / name).rename(tmp_path / "moved")
    (tmp_path / "run" / name).symlink_to(tmp_path / "moved")
    status, state = state_of(tmp_path / "run")
    assert status == 503
    assert f"{name}: must lie in the folder that is shown, but is a link out of it" in state["error"]


def test_no_word_of_a_linked_file_is_shown(tmp_path):
    unfinished_study(tmp_path / "run", n_trials=1)
    (tmp_path / "secret").write_text(f"password: [{SECRET}\n")
    (tmp_path / "run" / "config.yaml").unlink()
    (tmp_path / "run" / "config.yaml").symlink_to(tmp_path / "secret")
    assert SECRET not in json.dumps(state_of(tmp_path / "run"))


@pytest.mark.parametrize("name", ["losses.npy", "measurements.jsonl"])
def test_a_link_out_of_a_trial_s_folder_is_not_followed(tmp_path, name):
    unfinished_study(tmp_path / "run", n_trials=2)
    path = tmp_path / "run" / "trials" / "0001" / name
    path.rename(tmp_path / "moved")
    path.symlink_to(tmp_path / "moved")
    assert "is a link out of it" in state_of(tmp_path / "run")[1]["error"]


@pytest.mark.parametrize("name", ["measurements.jsonl", "alerts.jsonl", "guard.jsonl"])
def test_a_link_out_of_a_training_s_folder_is_not_followed(tmp_path, name):
    FolderSink(tmp_path / "watched")
    (tmp_path / "elsewhere").write_text('{"step": 1, "loss": 2.0, "level": "calm"}\n')
    (tmp_path / "watched" / name).unlink(missing_ok=True)
    (tmp_path / "watched" / name).symlink_to(tmp_path / "elsewhere")
    assert "is a link out of it" in state_of(tmp_path / "watched")[1]["error"]


def test_a_link_that_leads_to_itself_is_an_error_and_not_the_end(tmp_path):
    unfinished_study(tmp_path / "run", n_trials=1)
    (tmp_path / "run" / "running.json").symlink_to(tmp_path / "run" / "running.json")
    with served(tmp_path / "run") as address:
        answer_to(address, "/state")
        assert answer_to(address, "/")[0] == 200


def test_a_folder_that_is_itself_a_link_is_shown(tmp_path):
    unfinished_study(tmp_path / "run", n_trials=1)
    (tmp_path / "link").symlink_to(tmp_path / "run")
    assert state_of(tmp_path / "link")[0] == 200


@pytest.mark.parametrize("number", ["../../secret", "/etc", "0\x00", "..", "1e9", "-1"])
def test_a_run_s_number_in_a_table_names_no_other_folder(tmp_path, number):
    unfinished_study(tmp_path / "run", n_trials=1)
    path = tmp_path / "run" / "trials.csv"
    head, row = path.read_text().splitlines()
    assert row.startswith("0,")
    path.write_text(f"{head}\n{number},{row.partition(',')[2]}\n")
    (tmp_path / "secret").mkdir()
    (tmp_path / "run" / "trials" / "0000" / "losses.npy").rename(tmp_path / "secret" / "losses.npy")
    _, state = state_of(tmp_path / "run")
    assert state.get("runs", []) == []
