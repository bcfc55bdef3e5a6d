"""A PostgreSQL server of one's own for a test: in a temporary folder, on loopback, with passwords that are checked."""

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg

from tests.ports import free_ports

SUPERUSER, SUPERPASSWORD = "postgres", "of-the-superuser"
SETTINGS = "fsync=off\nshared_buffers=16MB\nlisten_addresses='127.0.0.1'\n"


def find_initdb():
    """The newest ``initdb`` of this machine, in the path or where Debian puts it; None if there is none."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    found = shutil.which("initdb") or (debian[-1] if debian else None)
    return found and Path(found)


class Server:
    """Starts with ``start`` and is ended with ``stop``; as root it runs as the user postgres, for it refuses root."""

    def __init__(self):
        self._bin = find_initdb().parent
        self._as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if not os.getuid() else []
        self.folder = Path(tempfile.mkdtemp(prefix="pg-"))
        (self.port,) = free_ports(1)  # not one that others are given while the server restarts
        password = self.folder / "password"
        password.write_text(SUPERPASSWORD)
        if self._as_user:
            for path in (self.folder, password):
                shutil.chown(path, "postgres")
        self._run("initdb", "-D", "data", "-U", SUPERUSER, "--pwfile=password", "--auth=scram-sha-256", "--no-sync")
        with (self.folder / "data" / "postgresql.conf").open("a") as settings:
            settings.write(f"{SETTINGS}port={self.port}\nunix_socket_directories='{self.folder}'\n")

    def start(self):
        self._run("pg_ctl", "-D", "data", "-l", "log", "-w", "start")

    def stop(self, mode="fast"):
        self._run("pg_ctl", "-D", "data", "-w", "-m", mode, "stop")

    def remove(self):
        with contextlib.suppress(subprocess.CalledProcessError):  # a test may have stopped it
            self.stop("immediate")
        shutil.rmtree(self.folder)

    def new_database(self, name, password):
        """A database and a user of that name, who owns it; its URL without the password's place filled in."""
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            connection.execute(psycopg.sql.SQL("CREATE USER {} PASSWORD {}").format(_name(name), password))
            connection.execute(psycopg.sql.SQL("CREATE DATABASE {} OWNER {}").format(_name(name), _name(name)))
        return f"postgresql+psycopg://{name}:{{}}@127.0.0.1:{self.port}/{name}"

    def wait_for_a_waiting_lock(self):
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            until = time.monotonic() + 120.0
            while not connection.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone()[0]:
                assert time.monotonic() < until, "nobody waits for a lock"

    def cut_connections(self, user):
        """End the connections of a user, as a network does that forgets them."""
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", [user])

    def let_write(self, database, may_write):
        """Let what connects from now on write, or only read, as on a standby; all who are connected are cut off."""
        change = psycopg.sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = {}")
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            connection.execute(change.format(_name(database), "off" if may_write else "on"))
        self.cut_connections(database)

    def isolate(self, database, level):
        """Isolate transactions by default as some administrators want it, those of connections to come."""
        change = psycopg.sql.SQL("ALTER DATABASE {} SET default_transaction_isolation = {}")
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            connection.execute(change.format(_name(database), level))

    @property
    def _dsn(self):
        return f"host=127.0.0.1 port={self.port} user={SUPERUSER} password={SUPERPASSWORD} dbname=postgres"

    def _run(self, tool, *arguments):
        command = [*self._as_user, str(self._bin / tool), *arguments]
        with (self.folder / "tools.log").open("ab") as log:  # not a pipe, which the server would keep open
            subprocess.run(command, cwd=self.folder, check=True, stdout=log, stderr=log, stdin=subprocess.DEVNULL)


def _name(name):
    return psycopg.sql.Identifier(name)
