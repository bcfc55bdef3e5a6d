"""A head that asks for a token: one who shows it is served as by any other, one who does not is told how."""

import subprocess
import sys

import pytest

from tests.ports import free_ports
from tests.submission.conftest import running_head

pytestmark = [pytest.mark.ray, pytest.mark.slow]

TOKEN = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0"


@pytest.fixture(scope="module")
def knowing(environment):
    """The environment of one who knows the token."""
    return {**environment, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}


@pytest.fixture(scope="module")
def guarded_head(knowing, rays_folder):
    with running_head(knowing, free_ports(4), rays_folder / "guarded") as url:
        yield url


def submit(config, head, out, environment):
    command = [sys.executable, "-m", "stabletune.cli", "submit", str(config), "--output", str(out), "--address", head]
    return subprocess.run([*command, "--quiet"], env=environment, capture_output=True, text=True)


def test_one_who_shows_it_gets_the_results(guarded_head, knowing, write_config, tmp_path):
    done = submit(write_config(), guarded_head, tmp_path / "out", knowing)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "recommended.yaml").exists()


@pytest.mark.parametrize(
    ("given", "answer"),
    [
        ({"RAY_AUTH_MODE": "disabled"}, "required: Unauthorized: Missing"),
        ({"RAY_AUTH_TOKEN": 64 * "a"}, "failed: Forbidden: Invalid"),
    ],
)
def test_one_who_does_not_is_told_how_in_a_line(guarded_head, knowing, write_config, tmp_path, given, answer):
    done = submit(write_config(), guarded_head, tmp_path / "out", {**knowing, **given})
    assert done.returncode == 2
    assert done.stderr == (
        f"--address: must be a Ray head's dashboard that lets you in, but '{guarded_head}' gave: Authentication "
        f"{answer} authentication token. Set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN to the head's token where "
        "~/.ray/auth_token does not hold it.\n"
    )
    assert not (tmp_path / "out").exists()
