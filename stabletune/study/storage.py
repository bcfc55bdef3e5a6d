"""Where a study is kept: a journal file in the run folder, or a database; opened to go on, or only to be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
from optuna.storages.journal import JournalFileBackend
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from stabletune.config import Config
from stabletune.errors import ConfigError, OutputFolderError

RECORDS_FORMAT, FORMAT = "records_format", 2


def open_storage(url: str | None, journal_path: Path, *, resume: bool) -> Any:
    """The storage of a search that begins, or goes on.

    Raises:
        ConfigError: the URL is none, or of a database that SQLAlchemy does not know.
        OutputFolderError: there is no journal to go on with, or it cannot be read.
    """
    if url is not None:
        database = _parsed(url).database
        if resume and _is_missing_file(url):
            raise OutputFolderError(
                f"storage: must hold the study that is to go on, but {database} is gone. "
                "Restore it, or start another search."
            )
        return url
    if resume:
        _check_journal(journal_path)
    return _journal(journal_path)


def _journal(path: Path) -> optuna.storages.JournalStorage:
    """The storage on a journal file, which reads the whole of it."""
    try:
        return optuna.storages.JournalStorage(JournalFileBackend(str(path)))
    except (ValueError, KeyError, TypeError, AssertionError, OSError) as error:
        raise OutputFolderError(
            f"{path}: must be a journal that Optuna wrote, but reading it gave {type(error).__name__}: {error}. "
            "Restore it, or start another search."
        ) from error


def read_study(config: Config, journal_path: Path) -> optuna.Study | None:
    """The study of a search, to be read only; None if it is gone.

    Raises:
        OutputFolderError: it cannot be read, or was written by another version.
    """
    url = config.storage_url
    if not journal_path.exists() if url is None else _is_missing_file(url):
        return None
    storage: Any = url or _journal(journal_path)
    try:
        study = optuna.load_study(study_name=config.name, storage=storage)
    except KeyError:
        return None
    except (SQLAlchemyError, ImportError) as error:
        raise OutputFolderError(
            f"{config.output}: the database of its study must be readable, but got {type(error).__name__}. "
            "Check the server, its Python driver and the file."
        ) from error
    check_format(study, config.output)
    return study


def _parsed(url: str) -> URL:
    """The parts of a URL whose dialect SQLAlchemy knows."""
    try:
        parts = make_url(url)
        parts.get_dialect()
    except (SQLAlchemyError, ValueError) as error:  # of which none repeats the password
        raise ConfigError(
            f"storage: must be an SQLAlchemy URL of a database it knows, but got {type(error).__name__}: {error}. "
            "Examples: sqlite:///study.db, postgresql+psycopg://USER@HOST/NAME."
        ) from error
    return parts


def _is_missing_file(url: str) -> bool:
    """Whether a SQLite file is named that is not there; opening it would make an empty one."""
    parts = _parsed(url)
    is_file = parts.get_backend_name() == "sqlite" and parts.database not in (None, "", ":memory:")
    return is_file and not Path(str(parts.database)).exists()


def check_format(study: optuna.Study, folder: object) -> None:
    """Refuse a study whose records another version of stabletune wrote."""
    found = study.user_attrs.get(RECORDS_FORMAT, 1)
    if found != FORMAT:
        raise OutputFolderError(
            f"{folder}: its records must have format {FORMAT}, but have format {found}, of another version of "
            "stabletune. Start another search, or use that version."
        )


def _check_journal(path: Path) -> None:
    """Refuse a folder without its journal, and cut off a last record that a crash left half written."""
    if not path.exists():
        raise OutputFolderError(
            f"{path}: must be there to go on with a search, but it is not. Restore it, or start another search."
        )
    content = path.read_bytes()
    if content and not content.endswith(b"\n"):
        with path.open("r+b") as journal:
            journal.truncate(content.rfind(b"\n") + 1)
