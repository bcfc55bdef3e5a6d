"""From a ``WorkloadReference`` to the user's function, and whether it keeps its own loop."""

from __future__ import annotations

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


def _execute(path: Path) -> ModuleType:
    folder = str(path.parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    name = f"_stabletune_workload_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise WorkloadError(f"workload: {path} must be a Python file, but it cannot be imported. Name a .py file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
