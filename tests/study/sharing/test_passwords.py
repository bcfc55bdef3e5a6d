"""The password of a database is in no file of a search and in nothing that a command says, whatever happens."""

import json

import pytest
from typer.testing import CliRunner

from stabletune.cli import app
from stabletune.dashboard.state import read_state

SMALL = ("trials: 8", "trials: 2"), ("confirm_seeds: 3", "confirm_seeds: 1")
PLAIN, SPECIAL, ESCAPED = "open-sesame", "s@ng/of 100%{x}", "s%40ng%2Fof%20100%25%7Bx%7D"


def invoke(*arguments, **environment):
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], env=environment)
    return done.exit_code, done.output + done.stderr + repr(done.exception)


def search(config, output, *options, **environment):
    return invoke("search", config, "--output", output, "--executor", "inline", *options, **environment)


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("password", "written", "environment"),
    [
        (PLAIN, PLAIN, {}),
        (SPECIAL, ESCAPED, {}),
        (PLAIN, "${STABLETUNE_PASSWORD}", {"STABLETUNE_PASSWORD": PLAIN}),
        (PLAIN, None, {"PGPASSWORD": PLAIN}),
    ],
    ids=["in the URL", "with special characters", "from the environment", "read by the client"],
)
def test_no_command_writes_or_says_the_password(
    new_database, write_shared_config, tmp_path, password, written, environment
):
    url = new_database(password).replace(":{}", "" if written is None else f":{written}")
    config, out = write_shared_config(url, *SMALL), tmp_path / "out"
    given = {"PGPASSWORD": None, **environment}
    said = {
        "search": search(config, out, **given),
        "resume": search(config, out, "--resume", **given),
        "again": search(config, out, **given),
        "report": invoke("report", out),
        "export": invoke("export", out, "--format", "json"),
        "compare": invoke("compare", out, "--executor", "inline", **given),
        "compare by the client": invoke("compare", out, "--executor", "inline", **{**given, "PGPASSWORD": password}),
        "warm start": search(config, tmp_path / "warm", "--set", f"warm_start=[{out}]", "--set", "name=w", **given),
        "dashboard": (0, json.dumps(read_state(out))),
    }
    kept = not written or written.startswith("$")
    codes = {name: code for name, (code, _) in said.items()}
    assert codes == dict.fromkeys(said, 0) | {
        "again": 2,
        "compare": 0 if kept else 2,
        "warm start": 0 if kept else 2,
    }, said
    for secret in {PLAIN, SPECIAL, ESCAPED} | ({written} if written and not kept else set()):
        assert not [name for name, (_, text) in said.items() if secret in text]
        assert not [name for name, content in files_of(out).items() if secret.encode() in content]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("sesame@", "sesami@"), "password authentication failed"),
        (("/me", "/nowhere"), "does not exist"),
        (("127.0.0.1:PORT", "127.0.0.1:1"), "onnection refused"),
        (("psycopg:", "pg8000:"), "No module named 'pg8000'"),
        (("sesame@", "ses@ame@"), "OperationalError"),
        ((":PORT", ":none"), "invalid literal for int()"),
        (("sesame@", "@:sesame@"), "invalid literal for int()"),
        (("postgresql+psycopg://", "postgresql:"), "must be an SQLAlchemy URL"),
    ],
    ids=[
        "wrong password",
        "unknown database",
        "dead port",
        "no driver",
        "an @ in the password",
        "no port",
        "an @: in the password",
        "no URL",
    ],
)
def test_a_database_that_cannot_be_opened_is_a_mistake_with_its_key_and_without_its_password(
    server, database, write_shared_config, tmp_path, change, says
):
    old, new = (text.replace("PORT", str(server.port)) for text in change)
    head, at, tail = database.rpartition(old)
    assert at
    url = head + new + tail
    code, said = search(write_shared_config(url), tmp_path / "out")
    assert code == 2, said
    assert "storage: " in said
    assert ":***@" in said
    assert says in said
    elsewhere = said.replace(str(tmp_path), "")  # which may hold any of these by chance, as popen-gw0 does
    assert not [part for part in ("open-", "sesam", "ses@", "ame@") if part in elsewhere]
    assert not (tmp_path / "out").exists()


def test_an_override_with_a_password_is_quoted_without_it(write_shared_config, tmp_path):
    config = write_shared_config("sqlite:///unused.db")
    for override in (
        "storage.x=postgresql://me:open-sesame@host/db",
        "storage=postgresql://me:open-sesame@${NOT_SET}/db",
    ):
        code, said = search(config, tmp_path / "out", "--set", override)
        assert code == 2
        assert "***@" in said
        assert "open-sesame" not in said
