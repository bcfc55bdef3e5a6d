"""Where a study is kept: a journal file in the run folder, or a database; opened to go on, or only to be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from stabletune.config import Config
from stabletune.errors import ConfigError, OutputFolderError, StorageError, without_password
from stabletune.study.sharing.access import DATABASE_ERRORS, Access, Alone, SharedDatabase, open_database, reason

RECORDS_FORMAT, FORMAT = "records_format", 2
CONFIG = "config"
OF_ONE_DRIVER = ("workload", "storage", "warm_start", "tensorboard", "resources.max_concurrent", "resources.address")

LOCKS = ".lock*"  # Optuna's, beside the journal

Beginning = Literal["anew", "anew or shared", "again", "again or anew"]


def open_study(config: Config, journal_path: Path, beginning: Beginning) -> tuple[optuna.Study, Access]:
    """The study of a search that begins, joins the other drivers of a study in PostgreSQL, or goes on.

    Raises:
        OutputFolderError: there is no study to go on with, or one where there must be none, or it cannot be read.
        ConfigError: the database cannot be opened, or its study is that of another config.
    """
    url = config.storage_url
    try:
        if url is None:
            if beginning == "again" or (beginning == "again or anew" and journal_path.exists()):
                _check_journal(journal_path)
            return _begin(config, _journal(journal_path), Alone(), beginning)
        access = _access(config)
        if beginning == "again" and _is_missing_file(url):
            raise OutputFolderError(
                f"storage: must hold the study that is to go on, but {make_url(url).database} is gone. "
                "Restore it, or start another search."
            )

        def begin() -> tuple[optuna.Study, Access]:
            storage = access.open_storage() if isinstance(access, SharedDatabase) else open_database(url)
            return _begin(config, storage, access, beginning)

        return access.exclusively(begin)
    except KeyError as error:
        raise study_is_gone(config) from error
    except optuna.exceptions.DuplicatedStudyError as error:
        to_go_on = "Add --resume to share it" if _is_shared(url) else "Go on with --resume in the folder of its search"
        raise OutputFolderError(
            f"storage: must not hold a study named {config.name!r} yet, but it does. {to_go_on}, or change name."
        ) from error
    except (*DATABASE_ERRORS, ImportError, StorageError) as error:
        said = reason(error.__cause__ or error if isinstance(error, StorageError) else error, url or "")
        raise ConfigError(
            f"storage: must be a database that can be opened, but got {said}, from "
            f"{without_password(config.storage or '')}. Check the URL, the server and its Python driver "
            "(pip install 'stabletune[postgresql]')."
        ) from error


def study_is_gone(config: Config) -> OutputFolderError:
    """What to raise where the study of a search is not in its storage any more."""
    place = f"{config.output}/study.journal" if config.storage is None else without_password(config.storage)
    return OutputFolderError(
        f"{config.output}: its study {config.name!r} must still be in {place}, but it is gone. "
        "Restore it, or start another search."
    )


def _access(config: Config) -> Access:
    url = _parsed(config)
    return SharedDatabase(url, without_password(config.storage or ""), config.name) if _is_shared(url) else Alone()


def _is_shared(url: str | None) -> bool:
    """Whether several drivers can be at a study there: a lock that dies with its driver is known of PostgreSQL only."""
    return url is not None and make_url(url).get_backend_name() == "postgresql"


def _parsed(config: Config) -> str:
    """The URL of the storage, once it is known to be one of a database that SQLAlchemy knows."""
    url = config.storage_url or ""
    try:
        make_url(url).get_dialect()
    except (SQLAlchemyError, ValueError) as error:
        raise ConfigError(
            f"storage: must be an SQLAlchemy URL of a database it knows, but got {reason(error, url)}, from "
            f"{without_password(config.storage or '')}. "
            "Examples: sqlite:///study.db, postgresql+psycopg://USER@HOST/NAME; special characters as %XX."
        ) from None  # what could not be taken apart may repeat a part of the password
    return url


def _directions(config: Config) -> list[StudyDirection]:
    return [StudyDirection.MINIMIZE] * (2 if config.objective.tradeoff else 1)


def _begin(config: Config, storage: Any, access: Access, beginning: Beginning) -> tuple[optuna.Study, Access]:
    """Every step comes after a look whether it is done: a kill may have come between any two."""
    may_join = beginning in ("anew or shared", "again or anew") and isinstance(access, SharedDatabase)
    may_be_there = may_join or (beginning == "again or anew" and not _has_finished(config, storage))
    if beginning == "again" or (may_be_there and config.name in optuna.get_all_study_names(storage)):
        study = optuna.load_study(storage=storage, study_name=config.name)
    else:
        study = optuna.create_study(storage=storage, study_name=config.name, directions=_directions(config))
    is_unused = not study.get_trials(deepcopy=False)
    if isinstance(access, SharedDatabase):
        access.leave_marks_in(study)
    if config.storage is not None:
        if CONFIG not in study.user_attrs and is_unused and study.directions == _directions(config):
            study.set_user_attr(CONFIG, json.loads(json.dumps(_of_every_driver(config.resolved()))))
        if may_be_there:
            _check_config(study, config)
    if RECORDS_FORMAT not in study.user_attrs and is_unused:
        study.set_user_attr(RECORDS_FORMAT, FORMAT)
    check_format(study, config.output)
    return study, access


def _has_finished(config: Config, storage: Any) -> bool:
    """Whether a study of that name has finished trials: it is not that of a folder without any."""
    if config.name not in optuna.get_all_study_names(storage):
        return False
    study = optuna.load_study(study_name=config.name, storage=storage)
    return any(trial.state.is_finished() for trial in study.get_trials(deepcopy=False))


def _check_config(study: optuna.Study, config: Config) -> None:
    """Refuse to join a study that was begun with another config, by name."""
    theirs = study.user_attrs.get(CONFIG)
    if theirs is None:
        raise OutputFolderError(
            f"{config.output}: the study {config.name!r} in storage must say which config it was begun with, but says "
            "none: it is of another version of stabletune, or of something else. Change name."
        )
    mine = _of_every_driver(config.resolved())
    differing = [key for key in config.difference({**config.resolved(), **theirs}) if key not in OF_ONE_DRIVER]
    if mine["workload"] != theirs.get("workload"):
        differing.append("workload")
    if differing:
        raise ConfigError(
            f"--resume: the study {config.name!r} in storage must have been begun with this config but for its budget, "
            f"but has other values for {', '.join(differing)}. Use the same config, or change name."
        )


def _of_every_driver(resolved: dict[str, Any]) -> dict[str, Any]:
    """A resolved config with the workload's name as it is on any machine."""
    return {**resolved, "workload": Path(resolved["workload"]).name}


class _Journal(JournalFileBackend):
    """Optuna's file, which must not be taken away while it is written: Optuna would begin one without what came before.

    Raises:
        StorageError: from ``append_logs``, where it has.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._path, self._least_size = Path(path), Path(path).stat().st_size

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append, if the file is still what it was or longer."""
        found = self._path.stat().st_size if self._path.is_file() else None
        if found is None or found < self._least_size:
            what = "it is gone" if found is None else f"it has {found} of its {self._least_size} bytes"
            raise StorageError(
                f"{self._path}: must stay as it is while a search writes it, but {what}. "
                "Restore it and go on with --resume, or start another search."
            )
        super().append_logs(logs)
        self._least_size = self._path.stat().st_size


def _journal(path: Path) -> optuna.storages.JournalStorage:
    """The storage on a journal file, which reads the whole of it."""
    try:
        return optuna.storages.JournalStorage(_Journal(str(path)))
    except (ValueError, KeyError, TypeError, AssertionError, RecursionError, OSError) as error:
        damage = _damage(path) if isinstance(error, ValueError) else None
        raise OutputFolderError(
            f"{path}: must be a journal that Optuna wrote, but "
            f"{damage or f'reading it gave {type(error).__name__}: {error}'}. Restore it, or start another search."
        ) from error


def _damage(path: Path) -> str | None:
    """Which line of a journal is no record, if one is not."""
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            json.loads(line)
        except (ValueError, RecursionError):
            return f"line {number} is damaged"
    return None


def read_study(config: Config, journal_path: Path) -> optuna.Study | None:
    """The study of a search, to be read only; None if it is gone.

    Raises:
        OutputFolderError: it cannot be read, or was written by another version.
    """
    url = config.storage_url
    if not journal_path.exists() if url is None else _is_missing_file(_parsed(config)):
        return None
    try:
        storage: Any = _journal(journal_path) if url is None else open_database(url)
        study = optuna.load_study(study_name=config.name, storage=storage)
    except KeyError:
        return None
    except (*DATABASE_ERRORS, ImportError) as error:
        raise OutputFolderError(
            f"{config.output}: the database of its study must be readable, but got {type(error).__name__}. "
            "Check the server, its Python driver and the file."
        ) from error
    check_format(study, config.output)
    return study


def _is_missing_file(url: str) -> bool:
    """Whether a SQLite file is named that is not there; opening it would make an empty one."""
    parts = make_url(url)
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
    """Refuse a folder without its journal; remove what a crash left: a lock, and a last record half written.

    A last line that is whole but no record is refused: Optuna finds it only once another has been written after it.
    """
    if not path.exists():
        raise OutputFolderError(
            f"{path}: must be there to go on with a search, but it is not. Restore it, or start another search."
        )
    for lock in path.parent.glob(f"{path.name}{LOCKS}"):  # of a dead process: the folder is claimed
        lock.unlink(missing_ok=True)
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    if end < len(content):
        with path.open("r+b") as journal:
            journal.truncate(end)
    records = content[:end].split(b"\n")[:-1]
    try:
        json.loads(records[-1] if records else b"{}")
    except (ValueError, RecursionError) as error:
        raise OutputFolderError(
            f"{path}: must be a journal that Optuna wrote, but its last line, {len(records)}, is damaged. "
            "Restore it, remove that line, or start another search."
        ) from error
