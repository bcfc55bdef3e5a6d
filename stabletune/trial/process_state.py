"""What user code may change of its process, put back after each trial, so that the next one finds it as it was."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import random
import sys
import warnings
from collections.abc import Iterator

import numpy as np
import torch

from stabletune.records import TrialSpec
from stabletune.trial.workload import forget_last_import


@contextlib.contextmanager
def kept_process() -> Iterator[None]:
    """Put back, on leaving, what user code may have changed meanwhile outside torch.

    The working folder, the environment, the import path, standard output and error, warnings, numpy's handling of
    errors, the recursion limit, logging and the garbage collector. What it replaces inside other modules stays.
    """
    folder, environment, path = os.getcwd(), dict(os.environ), list(sys.path)
    filters, float_errors = list(warnings.filters), np.geterr()
    recursion_limit, streams, disabled = sys.getrecursionlimit(), (sys.stdout, sys.stderr), logging.root.manager.disable
    collects = gc.isenabled()
    try:
        yield
    finally:
        os.chdir(folder)
        if dict(os.environ) != environment:
            os.environ.clear()
            os.environ.update(environment)
        sys.path[:] = path
        warnings.filters[:] = filters  # type: ignore[index]
        np.seterr(**float_errors)
        sys.setrecursionlimit(recursion_limit)
        sys.stdout, sys.stderr = streams
        logging.disable(disabled)
        (gc.enable if collects else gc.disable)()


def reset_process(spec: TrialSpec) -> None:
    """Set torch as every trial finds it, unload the user's modules of the last one, and free what it held."""
    forget_last_import()
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
