"""What lies in the folder that is shown is read, and no link is followed out of it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from stabletune.errors import OutputFolderError


def refuse_links_out(folder: Path, paths: Iterable[Path]) -> None:
    """Check that what is about to be read lies in the folder, which may itself be a link.

    Otherwise whoever writes in the folder could have files shown that only its reader may read.

    Raises:
        OutputFolderError: one of the paths leads out of the folder.
    """
    root = Path(os.path.realpath(folder))
    for path in paths:
        if not Path(os.path.realpath(path)).is_relative_to(root):
            raise OutputFolderError(
                f"{path}: must lie in the folder that is shown, but is a link out of it. "
                "Move the file itself there, or name the folder that holds all of them."
            )
