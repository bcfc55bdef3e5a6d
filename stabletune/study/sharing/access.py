"""How a driver gets at its study: alone, or in a database that it shares, one at a time and over a restart."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar
from urllib.parse import unquote, unquote_plus

from optuna.exceptions import StorageInternalError
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError

from stabletune.errors import StorageError, passwords_in

SECONDS_TO_COME_BACK = 60.0
SECONDS_BETWEEN_TRIES = 1.0
DATABASE_ERRORS = (SQLAlchemyError, StorageInternalError)
_DIES_WITH_ITS_DRIVER = "SET LOCAL idle_in_transaction_session_timeout = '60s'"
_FOR_LIBPQ = {"connect_timeout": 10, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}

T = TypeVar("T")


class Access(Protocol):
    """Runs what reads and changes a study."""

    def exclusively(self, action: Callable[[], T]) -> T:
        """Run ``action`` while no other driver runs one; an action inside an action is part of it."""
        ...

    @property
    def is_lost(self) -> bool:
        """Whether the study has been given up as out of reach."""
        ...


class Alone:
    """The access to a study that no other driver has."""

    is_lost = False

    def exclusively(self, action: Callable[[], T]) -> T:
        """Run ``action``."""
        return action()


class SharedDatabase:
    """The access to a study in a PostgreSQL database, under a lock that the server frees when a driver dies.

    A connection that breaks takes the lock with it, so the whole action is run again, even where that shows only once
    it is done: one must come out the same if a part of it, or all, has happened already. The server takes the lock
    from a driver that has held it for a minute, so an action must be over by then. Connections are not tested before
    use: one that broke unnoticed would be replaced in the middle of an action, without the lock.

    Args:
        url: of the database.
        shown: the same for messages, without its password.
        name: of the study.
        patience: how long a server may be away, in seconds.
    """

    def __init__(self, url: str, shown: str, name: str, *, patience: float = SECONDS_TO_COME_BACK) -> None:
        self._engine = create_engine(url, connect_args=connect_args(url), pool_size=1)
        self._url, self._shown, self._patience = url, shown, patience
        self._key = int.from_bytes(hashlib.sha256(f"stabletune {name}".encode()).digest()[:8], "big", signed=True)
        self._is_held = self._has_answered = self.is_lost = False

    def exclusively(self, action: Callable[[], T]) -> T:
        """See ``Access``; called from one thread.

        Raises:
            StorageError: the server has not come back in time, or refused what was stored. A database that has
                never answered raises what its client raised.
        """
        if self._is_held:
            return action()
        lost_at: float | None = None
        while True:
            try:
                return self._once(action)
            except DATABASE_ERRORS as error:
                if not self._has_answered:
                    raise
                now = time.monotonic()
                lost_at = now if lost_at is None else lost_at
                if self.is_lost or not _is_of_the_connection(error) or now - lost_at > self._patience:
                    self.is_lost = True
                    said = reason(error, self._url)
                    raise StorageError(
                        f"storage: {self._shown} must answer and take what is stored, but gave {said}. "
                        "See to the server, and go on with --resume."
                    ) from error
                time.sleep(SECONDS_BETWEEN_TRIES)

    def _once(self, action: Callable[[], T]) -> T:
        connection = self._engine.connect()
        try:
            connection.execute(text(_DIES_WITH_ITS_DRIVER))
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": self._key})
            self._is_held = self._has_answered = True
            result = action()
            connection.execute(text("SELECT 1"))  # a lock that was lost meanwhile kept nobody out
            return result
        finally:
            self._is_held = False
            self._let_go(connection)

    def _let_go(self, connection: Connection) -> None:
        """Free the lock; a connection that broke has done so, and what was done under it is done."""
        try:
            connection.close()
        except DATABASE_ERRORS:
            self._engine.dispose()


def connect_args(url: str) -> dict[str, Any]:
    """What makes a client notice a dead server within a minute; what the URL says itself goes first."""
    parts = make_url(url)
    is_libpq = parts.drivername in ("postgresql", "postgresql+psycopg", "postgresql+psycopg2")
    return {name: value for name, value in _FOR_LIBPQ.items() if is_libpq and name not in parts.query}


def reason(error: BaseException, url: str) -> str:
    """What the client of the database said, in one line and without the password."""
    cause = error.__cause__ if isinstance(error, (StorageInternalError, ImportError)) and error.__cause__ else error
    lines = str(cause).strip().splitlines()
    said = f"{type(cause).__name__}: {lines[0].rstrip('.') if lines else ''}"
    for written in passwords_in(url):
        for secret in (written, unquote(written), unquote_plus(written)):
            said = said.replace(secret, "***")
    return said


def _is_of_the_connection(error: BaseException) -> bool:
    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    return isinstance(cause, (OperationalError, InterfaceError))
