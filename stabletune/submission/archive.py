"""A run folder as one compressed file, for the way to a cluster and back."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import tarfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from stabletune.errors import JobError

FASTEST = 1  # curves hardly shrink further, and runs of hundreds of MB are common
BLOCK = 2**20


def pack_run(parts: Iterable[Path], archive: Path) -> None:
    """Write files and folders of a run to ``archive``, which is there as a whole or not at all."""
    part = archive.with_name(f"{archive.name}.{secrets.token_hex(4)}.part")
    try:
        with tarfile.open(part, "w:gz", compresslevel=FASTEST, dereference=True) as tar:
            for path in sorted(parts):
                tar.add(path, arcname=path.name)
        os.replace(part, archive)
    finally:
        part.unlink(missing_ok=True)


def unpack_run(archive: Path, folder: Path) -> None:
    """Write the files of ``archive`` into ``folder``.

    By hand: early patch releases of Python 3.10 and 3.11 lack the filters of ``tarfile``.

    Raises:
        JobError: one is a link or a device, or leads out of the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            name = PurePosixPath(member.name)
            if name.is_absolute() or ".." in name.parts or not (member.isreg() or member.isdir()):
                raise JobError(
                    f"{archive.name}: must hold files and folders of a run only, but holds {member.name!r}, a link, a "
                    "device or a path that leads out of it. It was not written by `stabletune`."
                )
            place = folder / name
            (place if member.isdir() else place.parent).mkdir(parents=True, exist_ok=True)
            content = tar.extractfile(member)
            if content is not None:
                with place.open("wb") as file:
                    shutil.copyfileobj(content, file, BLOCK)


def sha256_of(path: Path) -> str:
    """The hash of a file, read block by block."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
