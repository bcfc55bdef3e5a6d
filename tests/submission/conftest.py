import contextlib
import importlib.util
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.ports import free_ports

SECONDS_TO_START = 300.0


@pytest.fixture(scope="session")
def environment(tmp_path_factory):
    """This interpreter's commands on the PATH, a home of its own, and nothing that names or describes another Ray.

    A Ray that an earlier test started in this process leaves RAY_AUTH_MODE=token, for a token in the other home.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return {
        **kept,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path_factory.mktemp("home")),
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
    with running_head(environment, ports, rays_folder / "head") as url:
        yield url


@contextlib.contextmanager
def running_head(environment, ports, folder):
    if any(importlib.util.find_spec(name) is None for name in ("aiohttp_cors", "opencensus")):
        pytest.skip("ray[default], which brings the dashboard and the job API, is not installed")
    gcs, dashboard, client, agent = ports
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
    token = environment.get("RAY_AUTH_TOKEN", "")
    try:
        wait_for(f"{url}/api/jobs/", process, log, token)
        wait_for(f"http://127.0.0.1:{agent}/api/local_raylet_healthz", process, log, token)
        yield url
    finally:
        ended = process.poll()
        process.terminate()
        process.wait()
    assert ended is None, log.read_text()


class Losing(BaseHTTPRequestHandler):
    """Hands requests on to the head at ``server.head``, web sockets aside, and loses some that start a job.

    Of the next ``requests_lost`` the request is lost, of the next ``answers_lost`` the answer; ``delayed`` ones come to
    the head when the next one does, just before it.
    """

    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        server = self.server
        is_start = self.command == "POST" and self.path == "/api/jobs/"
        server.n_starts += is_start
        if is_start and server.requests_lost:
            server.requests_lost -= 1
            return
        if is_start and server.delayed:
            server.delayed -= 1
            server.on_their_way.append(body)
            return
        for late in server.on_their_way if is_start else ():
            self.hand_on(late)
        status, content_type, content = self.hand_on(body)
        if is_start and server.answers_lost:
            server.answers_lost -= 1
            return
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_PUT = do_GET

    def hand_on(self, body):
        kept = {
            name: value for name, value in self.headers.items() if name.lower() in ("authorization", "content-type")
        }
        url = self.server.head + self.path
        request = urllib.request.Request(url, data=body or None, headers=kept, method=self.command)
        try:
            answer = urllib.request.urlopen(request)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            return answer.status, answer.headers.get("Content-Type", "text/plain"), answer.read()

    def log_message(self, *words):
        pass


@pytest.fixture
def losing(head):
    """A way to the head on which starts of jobs, or the answers to them, may be lost or late."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Losing) as server:
        server.head, server.n_starts, server.on_their_way = head, 0, []
        server.requests_lost = server.answers_lost = server.delayed = 0
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def wait_for(url, process, log, token):
    deadline = time.monotonic() + SECONDS_TO_START
    while True:
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()
        try:
            with urllib.request.urlopen(urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.2)
