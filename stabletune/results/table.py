"""A csv file of one row per run, safe to append to while the study runs and to read after a crash.

Flows in: plain dictionaries; flows out: the same, with numbers, booleans and None restored. None is an empty cell,
non-finite numbers are ``nan``, ``inf`` and ``-inf``. A row is one line, so a line without its end is a write cut off.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stabletune.errors import OutputFolderError
from stabletune.results.atomic_files import append_line, replace_file

Row = dict[str, Any]
TEXT_COLUMNS = frozenset({"status", "reason", "purpose", "cause", "evidence", "remedy"})


class Table:
    """Rows with a key: writing a key again replaces its row. A file without a ``needed`` column is refused.

    One process writes; others may read at any time.
    """

    def __init__(self, path: Path, key: Sequence[str], needed: Sequence[str] = ()) -> None:
        self.path = path
        self._key, self._needed = tuple(key), tuple(dict.fromkeys([*key, *needed]))
        self._columns: tuple[str, ...] | None = None
        self._seen: set[tuple[Any, ...]] = set()

    def write(self, row: Mapping[str, Any]) -> None:
        """Append ``row``, or put it in the place of the row with the same key."""
        if self._columns is None:
            rows = self.rows()
            self._remember(rows)
            if self._is_torn():
                self.rewrite(rows)
        if self._columns != tuple(row) or self._key_of(row) in self._seen:
            self.rewrite([*self.rows(), row])
            return
        append_line(self.path, _line(row.values()))
        self._seen.add(self._key_of(row))

    def rewrite(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Replace the whole file; of rows with the same key the last stays, in the place of the first."""
        unique: dict[tuple[Any, ...], Mapping[str, Any]] = {}
        for row in rows:
            unique[self._key_of(row)] = row
        kept = list(unique.values())
        columns = _merged_columns(kept)
        lines = [_line(columns), *(_line(row.get(column) for column in columns) for row in kept)]
        replace_file(self.path, "".join(line + "\n" for line in lines) if kept else "")
        self._remember(kept)

    def rows(self) -> list[Row]:
        """Every whole row in the file, in file order; an absent file has none.

        Raises:
            OutputFolderError: the file is no such table.
        """
        if not self.path.exists():
            return []
        try:
            whole = self.path.read_bytes().rpartition(b"\n")[0]  # a kill may have cut the last line inside a letter
            whole_lines = whole.decode("utf-8-sig").split("\n") if whole else []
        except (UnicodeDecodeError, OSError) as error:
            raise OutputFolderError(f"{self.path}: must be a text file, but got {error}. Restore the file.") from error
        records = list(csv.reader(whole_lines))
        if not records:
            return []
        columns = records[0]
        missing = [name for name in self._needed if name not in columns]
        if missing:
            raise OutputFolderError(
                f"{self.path}: must have the columns {', '.join(self._needed)}, but lacks {', '.join(missing)}. "
                "Restore the file."
            )
        for number, record in enumerate(records[1:], start=2):
            if len(record) != len(columns):
                raise OutputFolderError(
                    f"{self.path}:{number}: each row must have {len(columns)} cells, but got {len(record)}. "
                    "Restore the file, or remove that line."
                )
        rows = [{c: _parsed(c, cell) for c, cell in zip(columns, record, strict=True)} for record in records[1:]]
        for number, row in enumerate(rows, start=2):
            for name in set(self._key) - TEXT_COLUMNS:
                if isinstance(row[name], bool) or not isinstance(row[name], int):
                    raise OutputFolderError(
                        f"{self.path}:{number}: {name} must be a whole number, but got {row[name]!r}. "
                        "Restore the file, or remove that line."
                    )
        return rows

    def _remember(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self._columns = tuple(_merged_columns(rows))
        self._seen = {self._key_of(row) for row in rows}

    def _key_of(self, row: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(row[name] for name in self._key)

    def _is_torn(self) -> bool:
        return self.path.exists() and not self.path.read_bytes().endswith(b"\n")


def _merged_columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Every column of any row; one that only later rows have goes where they have it."""
    columns: list[str] = []
    for row in rows:
        position = 0
        for name in row:
            if name in columns:
                position = columns.index(name) + 1
            else:
                columns.insert(position, name)
                position += 1
    return columns


def _line(cells: Iterable[Any]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="").writerow([_written(cell) for cell in cells])
    return buffer.getvalue()


def _written(cell: Any) -> str:
    if cell is None:
        return ""
    cell = cell.item() if hasattr(cell, "item") else cell
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float):
        return repr(cell)
    return " ".join(str(cell).split())


def _parsed(column: str, cell: str) -> Any:
    if column in TEXT_COLUMNS:
        return cell
    if cell in ("", "true", "false"):
        return {"": None, "true": True, "false": False}[cell]
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            continue
    return cell
