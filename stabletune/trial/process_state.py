"""What user code may change of its process, put back after each trial, so that the next one finds it as it was."""

from __future__ import annotations

import contextlib
import gc
import locale
import logging
import multiprocessing
import operator
import os
import random
import resource
import signal
import socket
import sys
import tempfile
import threading
import types
import warnings
from collections.abc import Callable, Container, Iterator
from typing import Any

import numpy as np
import torch

from stabletune.records import TrialSpec
from stabletune.trial.workload import forget_last_import, modules_of_last_import

_log = logging.getLogger("stabletune")
_Setting = tuple[Callable[[], Any], Callable[[Any], Any]]
_STREAMS = (0, 1, 2)
_LIMITS = [getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")]
_ATTRIBUTES = (
    *((sys, name) for name in ("stdin", "stdout", "stderr", "excepthook", "unraisablehook")),
    (threading, "excepthook"),
    (tempfile, "tempdir"),
)
_LISTS = (*((sys, name) for name in ("path", "argv", "meta_path", "path_hooks")), (logging.root, "handlers"))
_HOOKS = [
    hooks
    for module in ("torch.nn.modules.module", "torch.optim.optimizer")
    for name, hooks in vars(sys.modules[module]).items()
    if name.startswith("_global_") and isinstance(hooks, dict)
]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _put_back_limit(limit: int, was: tuple[int, int]) -> None:
    """As far as it may be: a hard one that was lowered stays, where only root may raise it."""
    try:
        resource.setrlimit(limit, was)
    except ValueError:
        hard = resource.getrlimit(limit)[1]
        resource.setrlimit(limit, (was[0] if 0 <= was[0] < hard else hard, hard))  # one that is infinite is -1


def _limit(number: int) -> _Setting:
    return lambda: resource.getrlimit(number), lambda was: _put_back_limit(number, was)


def _reversed_switch(enable: Callable[[], Any], disable: Callable[[], Any]) -> Callable[[bool], Any]:
    return lambda was: enable() if was else disable()


_SETTINGS: tuple[_Setting, ...] = (
    *map(_limit, _LIMITS),
    (os.getcwd, os.chdir),
    (_umask, os.umask),
    (lambda: list(warnings.filters), lambda was: warnings.filters.__setitem__(slice(None), was)),  # type: ignore[index]
    (np.geterr, lambda was: np.seterr(**was)),
    (sys.getrecursionlimit, sys.setrecursionlimit),
    (lambda: logging.root.manager.disable, logging.disable),
    (lambda: logging.root.level, logging.root.setLevel),
    (gc.isenabled, _reversed_switch(gc.enable, gc.disable)),
    (gc.get_threshold, lambda was: gc.set_threshold(*was)),
    (gc.get_debug, gc.set_debug),
    (socket.getdefaulttimeout, socket.setdefaulttimeout),
    (lambda: locale.setlocale(locale.LC_ALL), lambda was: locale.setlocale(locale.LC_ALL, was)),
    (
        lambda: multiprocessing.get_start_method(allow_none=True),
        lambda was: multiprocessing.set_start_method(was, force=True),
    ),
    (torch.backends.mha.get_fastpath_enabled, torch.backends.mha.set_fastpath_enabled),
    (torch.backends.cuda.flash_sdp_enabled, torch.backends.cuda.enable_flash_sdp),
    (torch.backends.cuda.mem_efficient_sdp_enabled, torch.backends.cuda.enable_mem_efficient_sdp),
    (torch.backends.cuda.math_sdp_enabled, torch.backends.cuda.enable_math_sdp),
    (lambda: torch.backends.mkldnn.enabled, torch._C._set_mkldnn_enabled),
)


@contextlib.contextmanager
def kept_process() -> Iterator[None]:
    """Put back, on leaving, what user code may have changed meanwhile.

    The working folder, the environment, the import path, loaded modules, the standard streams and their descriptors,
    signals, limits, locale, warnings, numpy's handling of errors, logging, the garbage collector, the hooks of all
    modules and optimizers, and what is defined in its own files and was put into others. What a library that it loads
    replaces stays, as does one library's function in the place of another's.
    """
    forget_last_import()
    with _kept_streams(), _kept_signals(), _kept_values(), _without_patches(), torch.inference_mode(False):
        had_group = _has_process_group()
        try:
            yield
        finally:
            if _has_process_group() and not had_group:
                torch.distributed.destroy_process_group()


@contextlib.contextmanager
def _kept_values() -> Iterator[None]:
    environment, modules = dict(os.environ), dict(sys.modules)
    attributes = [getattr(module, name) for module, name in _ATTRIBUTES]
    lists = [getattr(owner, name) for owner, name in _LISTS]
    contents, hooks = [list(items) for items in lists], [dict(entries) for entries in _HOOKS]
    settings = [get() for get, _ in _SETTINGS]
    try:
        yield
    finally:
        for (module, name), was in zip(_ATTRIBUTES, attributes, strict=True):
            setattr(module, name, was)
        sys.modules.update(modules)
        for (owner, name), items, kept in zip(_LISTS, lists, contents, strict=True):
            items[:] = kept
            setattr(owner, name, items)
        for entries, those in zip(_HOOKS, hooks, strict=True):
            entries.clear()
            entries.update(those)
        if dict(os.environ) != environment:
            os.environ.clear()
            os.environ.update(environment)
        for (get, put_back), was in zip(_SETTINGS, settings, strict=True):
            try:
                if get is os.getcwd or get() != was:  # the folder may be gone
                    put_back(was)
            except OSError as error:
                _spoil(f"{was!r} cannot be put back: {error}")


@contextlib.contextmanager
def _kept_streams() -> Iterator[None]:
    """Standard input, output and error, as the rest of the process sees them; closed ones stay closed."""
    copies = {}
    for number in _STREAMS:
        with contextlib.suppress(OSError):
            copies[number] = os.dup(number), os.isatty(number)
    try:
        yield
    finally:
        for number, (copy, was_terminal) in copies.items():
            if os.isatty(copy) is was_terminal:  # one that was closed cannot be written to any more
                os.dup2(copy, number)
            os.close(copy)


@contextlib.contextmanager
def _kept_signals() -> Iterator[None]:
    """What signals do, which only the main thread may change, and which of them this thread holds back."""
    is_main = threading.current_thread() is threading.main_thread()
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()} if is_main else {}
    blocked, alarm = signal.pthread_sigmask(signal.SIG_BLOCK, ()), signal.getitimer(signal.ITIMER_REAL)
    try:
        yield
    finally:
        if alarm == (0.0, 0.0):
            signal.setitimer(signal.ITIMER_REAL, 0.0)
        for number, handler in handlers.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


@contextlib.contextmanager
def _without_patches() -> Iterator[None]:
    """Take out what the user's own files put into other modules and their classes, which they do anew in each trial.

    A module that was loaded meanwhile is not known as it was: patched, it spoils the process.
    """
    for place in _places_not_known():
        _originals[id(place)] = (place, dict(vars(place)))
    try:
        yield
    finally:
        own = modules_of_last_import()
        files = {getattr(module, "__file__", None) for module in own.values()}
        for place, were in _originals.values():
            now = vars(place)
            if len(now) == len(were) and all(map(operator.is_, now.values(), were.values())):
                continue
            for name, value in list(now.items()):
                if value is not were.get(name) and _is_defined_in(own, files, value):
                    setattr(place, name, were[name]) if name in were else delattr(place, name)
        for place in _places_not_known():
            module = place.__name__ if isinstance(place, types.ModuleType) else place.__module__
            if module not in own and any(_is_defined_in(own, files, value) for value in list(vars(place).values())):
                _spoil(f"the workload replaced what is in {place.__name__}, which it loaded itself")


def _places_not_known() -> Iterator[types.ModuleType | type]:
    """The modules that are loaded and the classes they define, as far as it is not known what was in them."""
    for name, module in list(sys.modules.items()):
        if isinstance(module, types.ModuleType) and id(module) not in _originals:
            yield module
            for value in list(vars(module).values()):
                if issubclass(type(value), type) and getattr(value, "__module__", None) == name:
                    yield value


def _is_defined_in(modules: Container[str], files: Container[Any], value: object) -> bool:
    """Whether a function, a class or an object's class is; the object itself is asked nothing, which some warn of."""
    if type(value) in (staticmethod, classmethod):
        value = value.__func__  # type: ignore[attr-defined]
    if type(value) is types.FunctionType:
        return value.__code__.co_filename in files
    kind = value if issubclass(type(value), type) else type(value)
    return kind.__module__ in modules


_originals: dict[int, tuple[Any, dict[str, Any]]] = {}
_spoiled_by: list[str] = []


def is_spoiled() -> bool:
    """Whether an earlier trial changed what could not be put back, so that the next needs another process."""
    return bool(_spoiled_by)


def _spoil(reason: str) -> None:
    _spoiled_by.append(reason)
    _log.warning("the process is not as it was before the trial: %s", reason)


def _has_process_group() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


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
    _leave_autocast()


def _leave_autocast() -> None:
    for device, dtype in (("cpu", torch.bfloat16), ("cuda", torch.float16)):
        torch.set_autocast_enabled(device, False)
        torch.set_autocast_dtype(device, dtype)
    torch.set_autocast_cache_enabled(True)
    for _ in range(torch.autocast_increment_nesting()):  # one that was entered and never left
        torch.autocast_decrement_nesting()
    torch.clear_autocast_cache()


def seed_everything(seed: int) -> None:
    """Seed torch (all devices), numpy and random."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
