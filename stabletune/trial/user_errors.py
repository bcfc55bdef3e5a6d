"""What an exception of the user's code says, as a record can hold it: text for files, tables and terminals."""

from __future__ import annotations

import re
import traceback
from pathlib import Path

from stabletune.errors import without_password

MOST_OF_A_MESSAGE = 1_500
MOST_OF_A_REASON = 2_000  # letters; a cell of a table must stay below the 131,072 that Python's csv reads
MOST_OF_A_TRACEBACK = 20_000
BEYOND_A_CUT = 300  # letters that are looked at too: half a password in half a URL would not be known for one
_NO_TEXT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def told_by(error: BaseException, folder: Path | None) -> str:
    """Its class, its message, and the last line in a file of the user's ``folder`` that it came through, if one did."""
    try:
        message = str(error)
    except BaseException as another:  # user code too
        message = f"its message cannot be had: {type(another).__name__}"
    message = f"{type(error).__name__}: {readable(message, MOST_OF_A_MESSAGE)}"
    frames = [] if folder is None else traceback.extract_tb(error.__traceback__)
    lines = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames if _lies_in(frame.filename, folder)]
    return f"{message.rstrip()} ({lines[-1]})" if lines else message


def traceback_of(error: BaseException) -> str:
    """Its traceback."""
    return readable("".join(traceback.format_exception(error)), MOST_OF_A_TRACEBACK)


def readable(text: str, most: int) -> str:
    """The text with escapes for what is none, without passwords, its middle left out where it is longer than that."""
    if len(text) <= most:
        return _readable(text)
    half = most // 2
    begin, end = _readable(text[: half + BEYOND_A_CUT])[:half], _readable(text[-half - BEYOND_A_CUT :])[-half:]
    return f"{begin} ... ({len(text) - most} letters left out) ... {end}"


def _readable(text: str) -> str:
    return without_password(_NO_TEXT.sub(lambda found: ascii(found[0])[1:-1], text))


def _lies_in(file: str, folder: Path | None) -> bool:
    return folder is not None and Path(file).is_relative_to(folder) and "site-packages" not in Path(file).parts
