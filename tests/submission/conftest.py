import importlib.util
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.ports import free_ports

SECONDS_TO_START = 300.0
TOKEN = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0"


@pytest.fixture(scope="session")
def environment(tmp_path_factory):
    """This interpreter's commands on the PATH, a home of its own, and nothing that names or describes another Ray.

    A Ray that an earlier test started in this process leaves RAY_AUTH_MODE=token, for a token in the other home. The
    head of these tests asks for the token that is given here.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return {
        **kept,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path_factory.mktemp("home")),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": TOKEN,
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
        "PGPASSWORD": "of-the-cluster",
    }


@pytest.fixture(scope="session")
def ports():
    """Of the head's GCS, its dashboard, its client server, and the agent of its node."""
    return free_ports(4)


@pytest.fixture(scope="session")
def head(environment, ports, rays_folder):
    """The URL of a real head's dashboard, with one CPU."""
    if any(importlib.util.find_spec(name) is None for name in ("aiohttp_cors", "opencensus")):
        pytest.skip("ray[default], which brings the dashboard and the job API, is not installed")
    gcs, dashboard, client, agent = ports
    folder = rays_folder / "head"
    folder.mkdir()
    url = f"http://127.0.0.1:{dashboard}"
    command = (
        f"ray start --head --block --node-ip-address=127.0.0.1 --port={gcs} --dashboard-host=127.0.0.1 "
        f"--dashboard-port={dashboard} --ray-client-server-port={client} --dashboard-agent-listen-port={agent} "
        f"--num-cpus=1 --object-store-memory=100000000 --temp-dir={folder}"
    )
    log = folder / "start.log"
    with log.open("w") as written:
        process = subprocess.Popen(command.split(), env=environment, stdout=written, stderr=subprocess.STDOUT)
    try:
        wait_for(f"{url}/api/jobs/", process, log)
        wait_for(f"http://127.0.0.1:{agent}/api/local_raylet_healthz", process, log)
        yield url
    finally:
        ended = process.poll()
        process.terminate()
        process.wait()
    assert ended is None, log.read_text()


def wait_for(url, process, log):
    deadline = time.monotonic() + SECONDS_TO_START
    while True:
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()
        try:
            with urllib.request.urlopen(urllib.request.Request(url, headers={"Authorization": f"Bearer {TOKEN}"})):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.2)
