"""From a ``WorkloadReference`` to the user's function, and whether it keeps its own loop."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from stabletune.errors import WorkloadError
from stabletune.records import WorkloadReference

_NEVER_FORGOTTEN = ("site-packages", "dist-packages")


@dataclasses.dataclass(frozen=True)
class _Import:
    """The last import of a workload file: its folder, whether that was put on the path, and what was loaded before."""

    folder: Path
    extends_path: bool
    loaded_before: frozenset[str]


_last_import: _Import | None = None


def load_function(workload: WorkloadReference) -> Callable[..., Any]:
    """Import the file or module and return its function.

    A file is executed afresh at each call, with its folder importable.

    Raises:
        WorkloadError: no such function. What the file itself raises is passed on.
    """
    if workload.path is not None:
        module = _execute(Path(workload.path))
    else:
        module = importlib.import_module(workload.module or f"stabletune.trial.workloads.{workload.function}")
    is_built_in = workload.path is None and workload.module is None
    name = "build" if is_built_in else workload.function
    function = getattr(module, name, None)
    if not callable(function):
        raise WorkloadError(
            f"workload: {module.__file__} must define a function {name}, but it has none. "
            f"Define def {name}(seed, device): ... there."
        )
    return function  # type: ignore[no-any-return]


def keeps_own_loop(function: Callable[..., Any]) -> bool:
    """Whether the function's first parameter is named ``trial``."""
    return next(iter(inspect.signature(function).parameters), "") == "trial"


def forget_last_import() -> None:
    """Unload the last workload file and the modules beside it, and take its folder off the path.

    Modules that were there before it, installed packages and stabletune itself stay.
    """
    global _last_import
    if _last_import is None:
        return
    for name in modules_of_last_import():
        del sys.modules[name]
    last, _last_import = _last_import, None
    if last.extends_path and str(last.folder) in sys.path:
        sys.path.remove(str(last.folder))


def modules_of_last_import() -> dict[str, ModuleType]:
    """The last workload file and the modules beside it: none that was there before, is installed or is stabletune's."""
    if _last_import is None:
        return {}
    return {
        name: module
        for name, module in list(sys.modules.items())
        if name not in _last_import.loaded_before
        and name.partition(".")[0] != "stabletune"
        and _lies_in(module, _last_import.folder)
    }


def _lies_in(module: ModuleType, folder: Path) -> bool:
    """Whether the user's own folder holds the module's file, or its folder if it is a namespace package."""
    try:
        places = [file] if (file := getattr(module, "__file__", None)) else list(getattr(module, "__path__", ()))
    except KeyError:  # of a namespace package whose parent was unloaded
        return False
    paths = [Path(place) for place in places]
    return any(path.is_relative_to(folder) and not set(path.parts) & set(_NEVER_FORGOTTEN) for path in paths)


def _execute(path: Path) -> ModuleType:
    global _last_import
    forget_last_import()
    folder = str(path.parent)
    _last_import = _Import(path.parent, folder not in sys.path, frozenset(sys.modules))
    if _last_import.extends_path:
        sys.path.insert(0, folder)
    importlib.invalidate_caches()
    name = f"_stabletune_workload_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise WorkloadError(f"workload: {path} must be a Python file, but it cannot be imported. Name a .py file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
