"""Workloads that misbehave, each in its own way, as a user's file would: written against the README alone."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import torch

import stabletune


class Batches:
    """A stream that does something at one of its batches."""

    def __init__(self, at, action):
        self.at, self.action = at, action

    def __iter__(self):
        for n in range(10_000):
            if n == self.at:
                self.action()
            yield torch.randn(16, 4), torch.randn(16, 1)


def raises():
    raise RuntimeError("the data are gone")


def allocates():
    kept = []
    while True:
        kept.append(np.ones(2**22))


def holds_the_lock():
    # PyDLL keeps the interpreter's lock: no other thread runs meanwhile
    ctypes.PyDLL(None).sleep(3600)


def forks():
    if os.fork() == 0:
        time.sleep(0.1)  # and comes back into the training, as a careless child does


def dies_before_its_child():
    if os.fork() == 0:
        time.sleep(100)
        os._exit(0)
    os.kill(os.getpid(), signal.SIGKILL)


def prints():
    for _ in range(200):
        print("x" * 50_000)


def changes_torch():
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    torch.set_default_device("meta")
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(7)


def changes_python():
    os.chdir("/")
    os.environ.clear()
    sys.path.clear()
    np.seterr(all="raise")
    warnings.simplefilter("error")
    sys.setrecursionlimit(60)
    logging.disable(logging.CRITICAL)
    gc.disable()
    random.seed(0)
    sys.stdout = None


def closes_streams():
    sys.stdout.close()
    sys.stderr.close()


def leaves_a_thread():
    threading.Thread(target=time.sleep, args=(3600,)).start()


def ignores_signals():
    with contextlib.suppress(ValueError):  # only the main thread may
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})


class Silent(Exception):
    def __str__(self):
        raise SystemExit(3)


def raises_silently():
    raise Silent


def raises_megabytes():
    raise OSError("\udcff\0" * 2**20)


def opens_every_file():
    with contextlib.suppress(OSError):
        while True:
            os.open(os.devnull, os.O_RDONLY)


def closes_descriptors():
    for number in (0, 1, 2):
        os.close(number)


def replaces_functions():
    linear = torch.nn.functional.linear
    torch.nn.functional.linear = lambda *given: 1.5 * linear(*given)
    torch.optim.AdamW.step = time.monotonic = torch.manual_seed = lambda *_: 0.0


def hooks_every_module():
    torch.nn.modules.module.register_module_forward_hook(lambda module, given, output: 1.5 * output)


def lowers_limits():
    for limit in (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE):
        resource.setrlimit(limit, (8, resource.getrlimit(limit)[1]))
    os.umask(0o777)


def hangs_with_children():
    for _ in range(2):
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    time.sleep(3600)


def connects_to_ray():
    import ray

    ray.init(address="local")


ACTIONS = {
    "raises at a step": raises,
    "leaves by sys.exit": sys.exit,
    "leaves by os._exit": lambda: os._exit(0),
    "stops itself": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "kills itself": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "dies of a segmentation fault": lambda: ctypes.string_at(0),
    "sleeps for ever": lambda: time.sleep(3600),
    "hangs with the lock held": holds_the_lock,
    "allocates without end": allocates,
    "forks": forks,
    "dies before its child": dies_before_its_child,
    "prints megabytes": prints,
    "changes torch": changes_torch,
    "changes Python": changes_python,
    "closes its streams": closes_streams,
    "leaves a thread": leaves_a_thread,
    "ignores signals": ignores_signals,
    "raises KeyboardInterrupt": lambda: (_ for _ in ()).throw(KeyboardInterrupt()),
    "raises GeneratorExit": lambda: (_ for _ in ()).throw(GeneratorExit()),
    "raises what has no words": raises_silently,
    "raises megabytes that are no text": raises_megabytes,
    "opens every file": opens_every_file,
    "closes its descriptors": closes_descriptors,
    "replaces functions": replaces_functions,
    "hooks every module": hooks_every_module,
    "lowers limits": lowers_limits,
    "hangs with children": hangs_with_children,
    "connects to Ray": connects_to_ray,
    "runs out of recursion": lambda: (lambda f: f(f))(lambda f: f(f)),
}


def spins():
    while True:
        pass


def registers():
    """As registries of models do, which no process may fill twice."""
    if hasattr(torch.nn, "_rogue"):
        raise ValueError("a model of that name is registered")
    torch.nn._rogue = True


def leaves_memory():
    torch.nn.__dict__.setdefault("_kept", []).append(np.ones(2**27))


def build(seed, device, *, kind="none"):
    if kind.startswith("registers a model"):
        registers()
    if kind.startswith("leaves a GiB"):
        leaves_memory()
    if kind == "raises at build":
        raise ValueError("no such data set")
    if kind == "spins at build":
        spins()
    if kind == "gives back nothing":
        return None
    model = torch.nn.Linear(4, 1)
    losses = {
        "nan": lambda m, b: m(b[0]).sum() * float("nan"),
        "inf": lambda m, b: m(b[0]).square().mean() + float("inf"),
        "a vector": lambda m, b: m(b[0]),
        "a number": lambda m, b: float(m(b[0]).sum()),
        "no gradient": lambda m, b: m(b[0]).square().mean().detach() + 1.0,
        "another at each call": lambda m, b: (m(b[0]) - b[1]).square().mean() * (1.0 + random.SystemRandom().random()),
    }
    plain = lambda m, b: (m(b[0]) - b[1]).square().mean()  # noqa: E731
    return stabletune.Training(
        model=model,
        loss_fn=losses.get(kind, plain),
        batches=[] if kind == "no batches" else Batches(20, ACTIONS.get(kind, lambda: None)),
    )
