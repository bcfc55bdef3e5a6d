"""How a driver gets at its study: alone, or in a database that it shares, one at a time and over a restart."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar
from urllib.parse import unquote, unquote_plus

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import InterfaceError, OperationalError, PendingRollbackError, SQLAlchemyError
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from stabletune.errors import StorageError, passwords_in

SECONDS_TO_COME_BACK = 60.0
SECONDS_OF_SILENCE = 60.0
SECONDS_BETWEEN_TRIES = 1.0
MARK = "last_change:"
DATABASE_ERRORS = (SQLAlchemyError, StorageInternalError)
_END_WHEN_SILENT = text("SELECT set_config('idle_in_transaction_session_timeout', :milliseconds, true)")
_LOCK = text("SELECT pg_advisory_xact_lock(:key)")
_FOR_LIBPQ = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,  # of what was sent and not acknowledged, which keepalives do not watch
}

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
    """The access to a study in a PostgreSQL database: an action is one transaction, under a lock that ends with it.

    So an action happens whole or not at all, and while it has the lock: where its connection breaks the server undoes
    it, frees the lock, and it is run again. What it changes outside of the database it must be able to change twice.
    A commit that was not answered is looked up by a mark that it would have left. The server ends an action that
    stays silent, as that of a driver whose machine sleeps; it too is run again.

    Args:
        url: of the database.
        shown: the same for messages, without its password.
        name: of the study.
        patience: how long a server may be away, in seconds.
        silence: how long an action may leave the server alone, in seconds.
    """

    def __init__(
        self,
        url: str,
        shown: str,
        name: str,
        *,
        patience: float = SECONDS_TO_COME_BACK,
        silence: float = SECONDS_OF_SILENCE,
    ) -> None:
        self._engine = create_engine(
            url,
            connect_args=connect_args(url),
            pool_size=1,
            isolation_level="READ COMMITTED",  # any other would show an action the study as it was before it waited
        )
        self._url, self._shown, self._patience = url, shown, patience
        self._silence = str(round(1000 * silence))
        self._key = int.from_bytes(hashlib.sha256(f"stabletune {name}".encode()).digest()[:8], "big", signed=True)
        self._here = _OfThread()
        self._storage: RDBStorage | None = None
        self._study: optuna.Study | None = None
        self._marks = (f"{MARK}{uuid.uuid4().hex}", itertools.count())
        self._has_answered = self.is_lost = False

    def open_storage(self) -> RDBStorage:
        """The storage of its studies: what the thread of an action does with it is a part of the action."""
        here = self._here

        class Joining(Session):
            def get_bind(self, *args: Any, **kwargs: Any) -> Engine | Connection:
                return here.connection or super().get_bind(*args, **kwargs)

        storage = open_database(self._url)
        sessions: sessionmaker[Any] = sessionmaker(
            storage.engine, class_=Joining, join_transaction_mode="create_savepoint"
        )
        storage.scoped_session = scoped_session(sessions)
        self._storage = storage
        return storage

    def leave_marks_in(self, study: optuna.Study) -> None:
        """Tell which study the actions are of, as soon as it is known."""
        self._study = study

    def exclusively(self, action: Callable[[], T]) -> T:
        """See ``Access``.

        Raises:
            StorageError: the server has not come back in time, or refused what was stored. A database that has
                never answered raises what its client raised.
        """
        if self._here.connection is not None:
            return action()
        attempt = _Attempt(action)
        lost_at: float | None = None
        while True:
            try:
                return self._make(attempt)
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

    def _make(self, attempt: _Attempt[T]) -> T:
        try:
            with self._engine.connect() as connection:
                connection.execute(_END_WHEN_SILENT, {"milliseconds": self._silence})
                connection.execute(_LOCK, {"key": self._key})
                self._has_answered = True
                self._here.connection = connection
                try:
                    if attempt.mark is None or not self._has_left(attempt.mark):
                        attempt.result = attempt.action()
                        attempt.mark = self._leave_mark(connection)
                finally:
                    self._here.connection = None
                connection.commit()
                return attempt.result
        except BaseException:
            if self._study is not None:  # what it has read may have been undone
                self._study._storage = optuna.storages.get_storage(self._storage)
            raise

    def _leave_mark(self, connection: Connection) -> int | None:
        """Mark what is about to be committed, if the action has changed anything; None where there is no mark."""
        if self._study is None or connection.scalar(text("SELECT txid_current_if_assigned()")) is None:
            return None
        name, numbers = self._marks
        mark = next(numbers)
        with contextlib.suppress(KeyError):  # a study that the action has deleted
            self._study.set_user_attr(name, mark)
        return mark

    def _has_left(self, mark: int) -> bool:
        return self._study is not None and self._study.user_attrs.get(self._marks[0]) == mark


class _OfThread(threading.local):
    connection: Connection | None = None


class _Attempt(Generic[T]):
    """An action, and what it came to when it was run last: a result and a mark in the database."""

    result: T

    def __init__(self, action: Callable[[], T]) -> None:
        self.action = action
        self.mark: int | None = None


def open_database(url: str) -> RDBStorage:
    """Optuna's storage in a database, whose tables it makes where they are missing."""
    template = url.replace("{", "{{").replace("}", "}}")  # Optuna fills in the version of its schema
    return RDBStorage(template, engine_kwargs={"connect_args": connect_args(url)})


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
    """Whether the connection ended, whatever the class: a server that ends one itself says so as a fatal error."""
    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    diagnosis = getattr(getattr(cause, "orig", None), "diag", None)
    is_fatal = getattr(diagnosis, "severity_nonlocalized", None) == "FATAL"
    return is_fatal or isinstance(cause, (OperationalError, InterfaceError, PendingRollbackError))
