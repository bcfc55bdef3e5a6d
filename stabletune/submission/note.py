"""``submission.json``: which job writes the results of an output folder, until they are there."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from stabletune.errors import OutputFolderError
from stabletune.records import FORMAT_VERSION
from stabletune.results.atomic_files import replace_file

NAME = "submission.json"


@dataclasses.dataclass(frozen=True)
class Note:
    """The job, the head it was submitted to, and whether what the folder holds is the job's to replace.

    It is where the job goes on with the search in the folder, and as soon as its results begin to arrive.
    """

    job_id: str
    address: str
    goes_on: bool

    def write(self, folder: Path) -> None:
        """Leave it in an output folder."""
        content = {"version": FORMAT_VERSION, **dataclasses.asdict(self)}
        replace_file(folder / NAME, json.dumps(content, indent=2) + "\n")


def read_note(folder: Path) -> Note | None:
    """The note in an output folder; None where there is none.

    Raises:
        OutputFolderError: it cannot be read.
    """
    path = folder / NAME
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Note(content["job_id"], content["address"], content["goes_on"])
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise OutputFolderError(
            f"{path}: must name a job as `stabletune submit` wrote it, but cannot be read ({error}). "
            "Delete it, and fetch the job's results into another folder with --job."
        ) from error


def forget_note(folder: Path) -> None:
    """Delete it."""
    (folder / NAME).unlink(missing_ok=True)
