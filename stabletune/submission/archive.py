"""A run folder as one compressed file, for the way to a cluster and back."""

from __future__ import annotations

import hashlib
import os
import tarfile
from pathlib import Path

FASTEST = 1  # curves hardly shrink further, and runs of hundreds of MB are common
BLOCK = 2**20


def pack_run(folder: Path, archive: Path) -> None:
    """Write every file of ``folder`` to ``archive``, which is there as a whole or not at all."""
    part = archive.with_name(f"{archive.name}.part")
    with tarfile.open(part, "w:gz", compresslevel=FASTEST) as tar:
        for path in sorted(folder.iterdir()):
            tar.add(path, arcname=path.name)
    os.replace(part, archive)


def unpack_run(archive: Path, folder: Path) -> None:
    """Write the files of ``archive`` into ``folder``; none may lead out of it."""
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, "r:gz") as tar:
        tar.extractall(folder, filter="data")


def sha256_of(path: Path) -> str:
    """The hash of a file, read block by block."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
