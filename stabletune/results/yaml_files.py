"""YAML as the run folder writes and reads it: keys in the order given, a clear word when a file is no mapping."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from stabletune.errors import OutputFolderError


def as_yaml(content: Mapping[str, Any]) -> str:
    """Plain data as YAML text; innermost lists and mappings stay on one line."""
    return yaml.safe_dump(dict(content), sort_keys=False, default_flow_style=None, allow_unicode=True, width=120)


def read_yaml_mapping(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        OutputFolderError: the file is absent, is not YAML, or holds something else than a mapping.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise OutputFolderError(f"{path}: must be a file, but got nothing there. Check the path.") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, OSError) as error:
        detail = " ".join(str(error).split())
        raise OutputFolderError(f"{path}: must be YAML, but got {detail}. Restore the file.") from error
    if not isinstance(content, dict):
        raise OutputFolderError(
            f"{path}: must be a mapping of keys to values, but got {type(content).__name__}. Restore the file."
        )
    return content
