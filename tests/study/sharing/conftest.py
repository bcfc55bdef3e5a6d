import contextlib
import itertools
import textwrap

import pytest

from tests.study.sharing import drivers
from tests.study.sharing.postgres import Server, find_initdb

NUMBERS = itertools.count()
WORKLOAD = """
import os, pathlib, signal, time
from stabletune.trial.workloads.quadratic import build as quadratic

HERE = pathlib.Path(__file__).parent

def wait_for(is_there):
    until = time.monotonic() + 300.0
    while not is_there() and time.monotonic() < until:
        time.sleep(0.01)

def build(seed, device, *, n_drivers):
    (HERE / f"driver-{os.getpid()}").touch()
    wait_for(lambda: len(list(HERE.glob("driver-*"))) >= n_drivers)
    with (HERE / "runs").open("a") as runs:
        runs.write(f"{os.getpid()} {seed}\\n")
    n = len((HERE / "runs").read_text().splitlines())
    if (HERE / f"dies-in-{n}").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    if (HERE / f"waits-in-{n}").exists():
        (HERE / f"is-in-{n}").touch()
        wait_for((HERE / "goes-on").exists)
    return quadratic(seed, device, jitter=0.1, curvatures=[1.0, 30.0])
"""
CONFIG = """
    version: 1
    name: shared
    workload: meeting.py:build
    workload_args: {n_drivers: N_DRIVERS}
    search_space:
      lr: {low: 1.0e-3, high: 1.0e-1, scale: log}
      beta2: {low: 0.9, high: 0.999, scale: log_one_minus}
    budget: {trials: 8, trial_steps: 60, full_steps: 150, confirm_seeds: 3}
    storage: STORAGE
"""


@pytest.fixture(scope="session")
def server():
    """A server with its own port; a test that stops it starts it again."""
    if find_initdb() is None:
        pytest.skip("PostgreSQL must be there for this test, but initdb is not. On Debian: apt install postgresql")
    server = Server()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
def new_database(server):
    """Make a database with an owner of that password; its URL lacks the password, which goes into ``{}``."""
    return lambda password: server.new_database(f"me{next(NUMBERS)}", password)


@pytest.fixture
def database(new_database):
    """The URL of a new database, whose password is ``open-sesame``."""
    return new_database("open-sesame").format("open-sesame")


@pytest.fixture
def write_shared_config(tmp_path):
    """Write the config of a study whose runs begin once ``n_drivers`` drivers are at one; returns its path.

    In the n-th of all runs a driver kills itself where there is a file ``dies-in-n``; with ``waits-in-n`` it makes
    ``is-in-n`` and waits for ``goes-on``.
    """

    def write(storage, *replacements, n_drivers=1):
        text = textwrap.dedent(CONFIG).replace("STORAGE", storage).replace("N_DRIVERS", str(n_drivers))
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new)
        (tmp_path / "meeting.py").write_text(WORKLOAD)
        (tmp_path / "config.yaml").write_text(text)
        return tmp_path / "config.yaml"

    return write


@pytest.fixture
def start():
    """Start drivers; one that still runs when the test ends, as after a failure, is killed."""
    with contextlib.ExitStack() as started:

        def start_one(*arguments, **options):
            driver = started.enter_context(drivers.start(*arguments, **options))
            started.callback(driver.kill)
            return driver

        yield start_one
