"""The user's files for workers on other machines: the workload's folder, without what no worker needs."""

from __future__ import annotations

import fnmatch
import os
import shutil
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from stabletune.errors import ResourceError

EXCLUDED = (
    ".*",
    "__pycache__",
    "*.egg-info",
    "build",
    "dist",
    "node_modules",
    "runs",
    "venv",
    "wandb",
    "mlruns",
    "lightning_logs",
    "*.ckpt",
    "*.pt",
    "*.pth",
    "*.safetensors",
    "*.journal",
)
IGNORE_FILE = ".rayignore"
MOST_MIB = 100.0
N_NAMED = 3
MIB = 2.0**20


def pack(folder: Path, target: Path, *, besides: Collection[Path] = ()) -> None:
    """Copy ``folder`` to ``target``, without ``EXCLUDED`` and the names and paths that its ``.rayignore`` lists.

    Args:
        folder: the user's.
        target: where the copy goes.
        besides: files and folders that are left out too, if they lie in ``folder``.

    Raises:
        ResourceError: more than 100 MiB are left.
    """
    patterns = [*EXCLUDED, *_ignored(folder)]
    found = {
        path: path.stat().st_size
        for path in _files(folder, folder, patterns)
        if not any(path.is_relative_to(left_out) for left_out in besides)
    }
    total = sum(found.values()) / MIB
    if total > MOST_MIB:
        largest = sorted(found, key=lambda path: -found[path])[:N_NAMED]
        named = ", ".join(f"{path.relative_to(folder)} ({found[path] / MIB:.0f} MiB)" for path in largest)
        raise ResourceError(
            f"workload: its folder must have at most {MOST_MIB:.0f} MiB of files to send to the cluster, but "
            f"{folder} has {total:.0f}: {named}. List what workers do not need in {IGNORE_FILE} there, or load data "
            "from a place that every node can reach."
        )
    for path in found:
        place = target / path.relative_to(folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, place)


def _files(folder: Path, root: Path, patterns: Sequence[str]) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            path = Path(entry.path)
            if _is_excluded(path, root, patterns):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _files(path, root, patterns)
            elif entry.is_file():
                yield path


def _is_excluded(path: Path, root: Path, patterns: Sequence[str]) -> bool:
    relative = path.relative_to(root).as_posix()
    return any(fnmatch.fnmatch(path.name, pattern) or fnmatch.fnmatch(relative, pattern) for pattern in patterns)


def _ignored(folder: Path) -> list[str]:
    path = folder / IGNORE_FILE
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [line.strip().strip("/") for line in lines if line.strip() and not line.startswith("#")]
