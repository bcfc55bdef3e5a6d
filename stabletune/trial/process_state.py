"""What user code may change of its process, put back before the next trial runs there."""

from __future__ import annotations

import dataclasses
import gc
import logging
import os
import random
import sys
import warnings
from typing import Any

import numpy as np
import torch

from stabletune.records import TrialSpec
from stabletune.trial.workload import forget_last_import


@dataclasses.dataclass(frozen=True)
class _Original:
    """The process as the first trial found it."""

    folder: str
    environment: dict[str, str]
    path: list[str]
    filters: list[Any]
    float_errors: Any
    recursion_limit: int
    streams: tuple[Any, Any]


_original: _Original | None = None


def reset_process(spec: TrialSpec) -> None:
    """Undo what an earlier trial in this process may have changed globally, and free what it held.

    The working folder, the environment, the import path, the user's own modules, standard output, warnings, numpy's
    handling of errors, the garbage collector, and torch's defaults, threads and switches. What user code replaces
    inside other modules stays.
    """
    global _original
    if _original is None:
        _original = _Original(
            folder=os.getcwd(),
            environment=dict(os.environ),
            path=list(sys.path),
            filters=list(warnings.filters),
            float_errors=np.geterr(),
            recursion_limit=sys.getrecursionlimit(),
            streams=(sys.stdout, sys.stderr),
        )
    forget_last_import()
    _restore(_original)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        gc.collect()
        torch.cuda.empty_cache()
    torch.set_num_threads(spec.threads)
    torch.set_default_dtype(torch.float32)
    torch.set_default_device(None)
    torch.set_grad_enabled(True)
    torch.set_flush_denormal(False)
    torch.autograd.set_detect_anomaly(False)
    torch.use_deterministic_algorithms(False)
    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = False
    torch.backends.cudnn.allow_tf32 = True


def seed_everything(seed: int) -> None:
    """Seed torch (all devices), numpy and random."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def _restore(original: _Original) -> None:
    os.chdir(original.folder)
    if dict(os.environ) != original.environment:
        os.environ.clear()
        os.environ.update(original.environment)
    sys.path[:] = original.path
    warnings.filters[:] = original.filters  # type: ignore[index]
    np.seterr(**original.float_errors)
    sys.setrecursionlimit(original.recursion_limit)
    sys.stdout, sys.stderr = original.streams
    gc.enable()
    logging.disable(logging.NOTSET)
